"""
A frozen linear layer with a LoRA beside it, as one node of autograd: what it keeps for the backward
pass is its input, which q, k and v (and gate and up) share, and rank numbers a token.

Shapes: T tokens, I inputs, O outputs, R rank.

Source: https://arxiv.org/abs/2106.09685, equation 3: y = W x + (alpha / R) B A x
"""

from math import sqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LoraLinear(nn.Module):
    """`weight` and `bias` are the base model's, frozen; until add_lora() there is nothing else."""

    def __init__(self, num_inputs: int, num_outputs: int, *, has_bias: bool = False) -> None:
        super().__init__()
        self.weight: Tensor = frozen(num_outputs, num_inputs)
        self.bias: Tensor | None = frozen(num_outputs) if has_bias else None
        self.lora_A: nn.Parameter | None = None
        self.lora_B: nn.Parameter | None = None
        self.scale = 0.0
        self.is_enabled = True

    @classmethod
    def of(cls, linear: nn.Linear) -> "LoraLinear":
        """The same layer; it shares the tensors."""
        made = cls(linear.in_features, linear.out_features)
        made.weight, made.bias = linear.weight, linear.bias
        return made

    def add_lora(self, rank: int, *, alpha: float, device: torch.device) -> None:
        """fp32 whatever the base's type; B is zero, so at first the layer is the base's own."""
        num_outputs, num_inputs = self.weight.shape
        # As PEFT draws it: kaiming_uniform_ with a = sqrt(5).
        first = torch.empty(rank, num_inputs).uniform_(-1, 1) / sqrt(num_inputs)
        self.lora_A = nn.Parameter(first.to(device))
        self.lora_B = nn.Parameter(torch.zeros(num_outputs, rank, device=device))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:  # (..., I) -> (..., O)
        if self.lora_A is None or not self.is_enabled:
            return F.linear(x, self.weight, self.bias)
        y_TO: Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
            x.flatten(0, -2), self.weight, self.bias, self.lora_A, self.lora_B, self.scale
        )
        return y_TO.view(*x.shape[:-1], -1)


def frozen(*shape: int) -> nn.Parameter:
    """A place for one of the base model's tensors; it has no values until they are loaded."""
    return nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False)


class _LoraProduct(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917  autograd passes everything by place
        ctx: Any,  # noqa: ANN401
        x_TI: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scale: float,
    ) -> Tensor:
        a_RI, b_OR = a_RI.to(x_TI.dtype), b_OR.to(x_TI.dtype)
        low_TR = x_TI @ a_RI.T
        ctx.save_for_backward(x_TI, weight_OI, a_RI, b_OR, low_TR)
        ctx.scale = scale
        return F.linear(x_TI, weight_OI, bias_O).addmm_(low_TR, b_OR.T, alpha=scale)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401
        dy_TO: Tensor,
    ) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        x_TI, weight_OI, a_RI, b_OR, low_TR = ctx.saved_tensors
        dlow_TR = (dy_TO @ b_OR).mul_(ctx.scale)
        dx_TI = (dy_TO @ weight_OI).addmm_(dlow_TR, a_RI) if ctx.needs_input_grad[0] else None
        da_RI = dlow_TR.T @ x_TI
        db_OR = (dy_TO.T @ low_TR).mul_(ctx.scale)
        return dx_TI, None, None, da_RI.float(), db_OR.float(), None
