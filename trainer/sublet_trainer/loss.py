"""
Cross-entropy at the supervised positions alone, a chunk of them at a time: the (tokens x
vocabulary) matrix of logits, which for SmolLM2 is 200 MB a thousand tokens, never exists. The head
is frozen, so the gradient of the hidden states is computed along with the loss and nothing is kept
for later.

Shapes: S supervised positions, C positions of a chunk, D hidden width, V vocabulary.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK: Final = 256


class FrozenHeadLoss(torch.autograd.Function):
    """sum of -weight * log softmax(head @ hidden)[target]; differentiable in hidden alone."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        hidden_SD: Tensor,
        head_VD: Tensor,
        targets_S: Tensor,
        weights_S: Tensor,
    ) -> Tensor:
        """Accumulates in fp32 whatever the model's type; returns fp32 ()."""
        grad_SD = torch.empty_like(hidden_SD)
        total = torch.zeros((), dtype=torch.float32, device=hidden_SD.device)
        for start in range(0, len(hidden_SD), CHUNK):
            chunk = slice(start, start + CHUNK)
            targets_C, weights_C = targets_S[chunk, None], weights_S[chunk, None]
            logp_CV = torch.log_softmax((hidden_SD[chunk] @ head_VD.T).float(), dim=-1)
            total -= (logp_CV.gather(1, targets_C) * weights_C).sum()
            grad_logits_CV = logp_CV.exp_().scatter_add_(
                1, targets_C, torch.full_like(weights_C, -1.0)
            )
            grad_SD[chunk] = (grad_logits_CV * weights_C).to(head_VD.dtype) @ head_VD
        ctx.save_for_backward(grad_SD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        (grad_SD,) = ctx.saved_tensors
        return grad_SD * grad.to(grad_SD.dtype), None, None, None


def loss_sum(hidden_SD: Tensor, head_VD: Tensor, targets_S: Tensor, weights_S: Tensor) -> Tensor:
    """
    The summed, weighted loss in nats, fp32 ().

    Args:
        hidden_SD: the last hidden states before each supervised token.
        head_VD: frozen; its gradient would be missing.
    """
    assert not head_VD.requires_grad
    loss: Tensor = FrozenHeadLoss.apply(  # type: ignore[no-untyped-call]
        hidden_SD, head_VD, targets_S, weights_S
    )
    return loss
