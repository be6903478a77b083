"""
The log-probabilities of given tokens, a block of the vocabulary at a time: the (tokens x
vocabulary) matrix of logits, which for SmolLM2 is 200 MB a thousand tokens, never exists. A frozen
head's slope is computed along with its value, and nothing else is kept for later.

Shapes: S positions whose next token is given, B tokens of a block of the vocabulary, D hidden
width, V vocabulary.

Source: https://arxiv.org/abs/1805.02867 (a softmax whose sum grows with its largest logit)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK: Final = 2048
"""Tokens of the vocabulary at a time: the fp32 logits of 600 positions are 5 MB, a core's cache."""


def log_probs(
    hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor, *, entropy_S: Tensor | None = None
) -> Tensor:
    """
    In nats, fp32 (S,): log softmax(head @ hidden)[target]; differentiable in hidden alone.

    Args:
        hidden_SD: the last hidden states before each given token.
        head_VD: frozen; its gradient would be missing.
        entropy_S: filled with the entropy of each position's distribution, in nats, fp32.
    """
    assert not head_VD.requires_grad
    logp_S: Tensor = _FrozenHead.apply(hidden_SD, head_VD, targets_S, entropy_S)  # type: ignore[no-untyped-call]
    return logp_S


def trained_log_probs(hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor) -> Tensor:
    """
    As log_probs(), and differentiable in the head too, whose every block is computed again in the
    backward pass: its slope is needed once the losses' own are known.
    """
    logp_S: Tensor = _TrainedHead.apply(hidden_SD, head_VD, targets_S)  # type: ignore[no-untyped-call]
    return logp_S


@dataclass(slots=True)
class _Softmax:
    """
    Of logits that come a block at a time, fp32 whatever the model's type. `target` is the target's
    logit once its block has come; of all other tokens so far, `others` is the sum of
    exp(logit - top) and `weighted` that of exp(logit - top) * logit.
    """

    targets_S: Tensor
    target_S: Tensor
    top_S: Tensor
    others_S: Tensor
    weighted_S: Tensor

    @classmethod
    def of(cls, targets_S: Tensor) -> Self:
        nothing_S = torch.zeros(len(targets_S), device=targets_S.device)
        lowest_S = torch.full_like(nothing_S, torch.finfo(nothing_S.dtype).min)
        return cls(targets_S, nothing_S, lowest_S, nothing_S, nothing_S)

    def add(
        self, logits_SB: Tensor, block: slice, *, weighs: bool = False
    ) -> tuple[Tensor, Tensor]:
        """
        Returns:
            exp(logit - top), 0 for the targets, (S, B); and by how much the rise of the top has
            shrunk what it was of earlier blocks, (S,).
        """
        top_S = torch.maximum(self.top_S, logits_SB.amax(dim=1))
        shrunk_S = (self.top_S - top_S).exp_()
        place_S1, is_here_S1 = _places(self.targets_S, block)
        target_S = logits_SB.gather(1, place_S1)[:, 0]
        exps_SB = (logits_SB - top_S[:, None]).exp_()
        exps_SB.scatter_(1, place_S1, exps_SB.gather(1, place_S1).masked_fill_(is_here_S1, 0))
        self.target_S = torch.where(is_here_S1[:, 0], target_S, self.target_S)
        self.top_S = top_S
        self.others_S = self.others_S * shrunk_S + exps_SB.sum(dim=1)
        if weighs:
            self.weighted_S = self.weighted_S * shrunk_S + (exps_SB * logits_SB).sum(dim=1)
        return exps_SB, shrunk_S

    def total(self) -> Tensor:
        """That of `others` and of the target."""
        return self.others_S + (self.target_S - self.top_S).exp()

    def log_total(self) -> Tensor:
        """Of exp(logit)."""
        return self.top_S + self.total().log()

    def entropy(self) -> Tensor:
        weighted_S = self.weighted_S + (self.target_S - self.top_S).exp() * self.target_S
        return self.log_total() - weighted_S / self.total()


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden_SD: Tensor,
        head_VD: Tensor,
        targets_S: Tensor,
        entropy_S: Tensor | None,
    ) -> Tensor:
        softmax, needs_slope = _Softmax.of(targets_S), ctx.needs_input_grad[0]
        others_SD = torch.zeros_like(hidden_SD, dtype=torch.float32) if needs_slope else None
        for block in _blocks(head_VD):
            logits_SB = (hidden_SD @ head_VD[block].T).float()
            exps_SB, shrunk_S = softmax.add(logits_SB, block, weighs=entropy_S is not None)
            if others_SD is not None:
                others_SD.mul_(shrunk_S[:, None]).add_(exps_SB.to(head_VD.dtype) @ head_VD[block])
        if entropy_S is not None:
            entropy_S.copy_(softmax.entropy())
        if others_SD is not None:
            own_SD = softmax.others_S[:, None] * head_VD[targets_S]
            slope_SD = (own_SD - others_SD) / softmax.total()[:, None]
            ctx.save_for_backward(slope_SD.to(hidden_SD.dtype))
        return softmax.target_S - softmax.log_total()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (slope_SD,) = ctx.saved_tensors
        return slope_SD * grad_S[:, None].to(slope_SD.dtype), None, None, None


class _TrainedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor) -> Tensor:  # noqa: ANN401
        softmax = _Softmax.of(targets_S)
        for block in _blocks(head_VD):
            softmax.add((hidden_SD @ head_VD[block].T).float(), block)
        ctx.save_for_backward(hidden_SD, head_VD, targets_S, softmax.log_total())
        return softmax.target_S - softmax.log_total()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        hidden_SD, head_VD, targets_S, log_total_S = ctx.saved_tensors
        dhidden_SD = torch.zeros_like(hidden_SD, dtype=torch.float32)
        dhead_VD = torch.empty_like(head_VD)
        grad_S1 = grad_S[:, None]
        for block in _blocks(head_VD):
            logits_SB = (hidden_SD @ head_VD[block].T).float()
            dlogits_SB = (logits_SB - log_total_S[:, None]).exp_().mul_(-grad_S1)
            place_S1, is_here_S1 = _places(targets_S, block)
            dlogits_SB.scatter_add_(1, place_S1, grad_S1 * is_here_S1)
            dlogits_SB = dlogits_SB.to(head_VD.dtype)
            dhidden_SD += dlogits_SB @ head_VD[block]
            dhead_VD[block] = dlogits_SB.T @ hidden_SD
        return dhidden_SD.to(hidden_SD.dtype), dhead_VD, None


def _blocks(head_VD: Tensor) -> Iterator[slice]:
    for start in range(0, len(head_VD), BLOCK):
        yield slice(start, min(start + BLOCK, len(head_VD)))


def _places(targets_S: Tensor, block: slice) -> tuple[Tensor, Tensor]:
    """Where in a block the targets are, and of which of them that is so; (S, 1)."""
    place_S = targets_S - block.start
    is_here_S = (place_S >= 0) & (targets_S < block.stop)
    return place_S.clamp_(0, block.stop - block.start - 1)[:, None], is_here_S[:, None]
