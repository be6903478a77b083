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


def log_probs(hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor) -> Tensor:
    """
    In nats, fp32 (S,): log softmax(head @ hidden)[target]; differentiable in hidden alone.

    Args:
        hidden_SD: the last hidden states before each given token.
        head_VD: frozen; its gradient would be missing.
    """
    assert not head_VD.requires_grad
    logp_S: Tensor = _FrozenHead.apply(hidden_SD, head_VD, targets_S)  # type: ignore[no-untyped-call]
    return logp_S


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor) -> Tensor:  # noqa: ANN401
        """Sums in fp32 whatever the model's type."""
        needs_slope = ctx.needs_input_grad[0]
        slope_SD = torch.empty_like(hidden_SD) if needs_slope else None
        logp_S = torch.empty(len(hidden_SD), dtype=torch.float32, device=hidden_SD.device)
        for start in range(0, len(hidden_SD), CHUNK):
            chunk = slice(start, start + CHUNK)
            targets_C1 = targets_S[chunk, None]
            logp_CV = torch.log_softmax((hidden_SD[chunk] @ head_VD.T).float(), dim=-1)
            logp_S[chunk] = logp_CV.gather(1, targets_C1)[:, 0]
            if slope_SD is not None:
                minus_one_C1 = torch.full_like(targets_C1, -1, dtype=logp_CV.dtype)
                dlogits_CV = logp_CV.exp_().scatter_add_(1, targets_C1, minus_one_C1)
                slope_SD[chunk] = (dlogits_CV.to(head_VD.dtype) @ head_VD).neg_()
        ctx.save_for_backward(slope_SD)
        return logp_S

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_S: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (slope_SD,) = ctx.saved_tensors
        return slope_SD * grad_S[:, None].to(slope_SD.dtype), None, None
