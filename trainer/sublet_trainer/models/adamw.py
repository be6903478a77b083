"""
AdamW by torch's own kernel, which goes over weights, gradients and moments once. torch.optim, where
it is at home, loads the machinery of torch.compile when it is made: 1.4 of the 3.6 CPU-seconds that
a trainer needs to its first step. Of a parameter that is split between ranks, each rank keeps and
moves its piece.

Source: https://arxiv.org/abs/1711.05101, algorithm 2
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from sublet_trainer.models.splitting import local

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPS: Final = 1e-8


class AdamW:
    """`first` and `second` are the moments, by the parameters' names."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, weight_decay: float) -> None:
        self._parameters = parameters
        self._weight_decay = weight_decay
        self.num_steps = 0
        self.first = {name: torch.zeros_like(one) for name, one in parameters.items()}
        self.second = {name: torch.zeros_like(one) for name, one in parameters.items()}

    def zero_grad(self) -> None:
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Every parameter has a gradient."""
        self.num_steps += 1
        weights = [local(one) for one in self._parameters.values()]
        num_steps = torch.full((), float(self.num_steps), device=weights[0].device)
        torch._fused_adamw_(
            weights,
            [local(_gradient(one)) for one in self._parameters.values()],
            [local(self.first[name]) for name in self._parameters],
            [local(self.second[name]) for name in self._parameters],
            [],
            [num_steps] * len(weights),
            lr=lr,
            beta1=BETA_1,
            beta2=BETA_2,
            weight_decay=self._weight_decay,
            eps=EPS,
            amsgrad=False,
            maximize=False,
        )


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
