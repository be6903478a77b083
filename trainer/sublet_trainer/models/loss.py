"""
The log-probabilities of given tokens, a chunk of positions at a time: the (tokens x vocabulary)
matrix of logits, which for SmolLM2 is 200 MB a thousand tokens, never exists. The head is frozen,
so each position's slope is computed along with its value, and nothing else is kept for later.

Shapes: S positions whose next token is given, C positions of a chunk, D hidden width, V vocabulary.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK: Final = 128
"""Positions at a time: their fp32 logits over 49,152 tokens are 25 MB, a server's cache."""


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
    As log_probs(), and differentiable in the head too, whose every chunk is computed again in the
    backward pass: its slope is needed once the losses' own are known.
    """
    logp_S: Tensor = _TrainedHead.apply(hidden_SD, head_VD, targets_S)  # type: ignore[no-untyped-call]
    return logp_S


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden_SD: Tensor,
        head_VD: Tensor,
        targets_S: Tensor,
        entropy_S: Tensor | None,
    ) -> Tensor:
        """Sums in fp32 whatever the model's type."""
        needs_slope = ctx.needs_input_grad[0]
        slope_SD = torch.empty_like(hidden_SD) if needs_slope else None
        logp_S = torch.empty(len(hidden_SD), dtype=torch.float32, device=hidden_SD.device)
        for start in range(0, len(hidden_SD), CHUNK):
            chunk = slice(start, start + CHUNK)
            targets_C1 = targets_S[chunk, None]
            logp_CV = torch.log_softmax((hidden_SD[chunk] @ head_VD.T).float(), dim=-1)
            logp_S[chunk] = logp_CV.gather(1, targets_C1)[:, 0]
            if entropy_S is not None:
                entropy_S[chunk] = -(logp_CV.exp() * logp_CV).sum(dim=1)
            if slope_SD is not None:
                minus_one_C1 = torch.full_like(targets_C1, -1, dtype=logp_CV.dtype)
                dlogits_CV = logp_CV.exp_().scatter_add_(1, targets_C1, minus_one_C1)
                slope_SD[chunk] = (dlogits_CV.to(head_VD.dtype) @ head_VD).neg_()
        ctx.save_for_backward(slope_SD)
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (slope_SD,) = ctx.saved_tensors
        return slope_SD * grad_S[:, None].to(slope_SD.dtype), None, None, None


class _TrainedHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(hidden_SD, head_VD, targets_S)
        logp_S = torch.empty(len(hidden_SD), dtype=torch.float32, device=hidden_SD.device)
        for start in range(0, len(hidden_SD), CHUNK):
            chunk = slice(start, start + CHUNK)
            logp_CV = torch.log_softmax((hidden_SD[chunk] @ head_VD.T).float(), dim=-1)
            logp_S[chunk] = logp_CV.gather(1, targets_S[chunk, None])[:, 0]
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        """The head's gradient is summed in fp32: rounding each chunk to bf16 would bias it."""
        hidden_SD, head_VD, targets_S = ctx.saved_tensors
        dhidden_SD = torch.empty_like(hidden_SD)
        dhead_VD = torch.zeros_like(head_VD, dtype=torch.float32)
        for start in range(0, len(hidden_SD), CHUNK):
            chunk = slice(start, start + CHUNK)
            grad_C1 = grad_S[chunk, None]
            probabilities_CV = torch.softmax((hidden_SD[chunk] @ head_VD.T).float(), dim=-1)
            dlogits_CV = probabilities_CV.mul_(-grad_C1)
            dlogits_CV = dlogits_CV.scatter_add_(1, targets_S[chunk, None], grad_C1)
            dlogits_CV = dlogits_CV.to(head_VD.dtype)
            dhidden_SD[chunk] = dlogits_CV @ head_VD
            dhead_VD += dlogits_CV.T @ hidden_SD[chunk]
        return dhidden_SD, dhead_VD.to(head_VD.dtype), None
