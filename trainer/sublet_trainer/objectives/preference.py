"""
Preference losses: which of two answers to a prompt is the better one. DPO asks that training widen
the gap between the two from what it was in the model that was started from, which is computed
beside each row by a second forward pass, the adapter put aside; ORPO needs no such model.

Shapes: S supervised tokens of a row, D its documents, P its pairs: documents 2p and 2p + 1 are a
preferred answer and its rival.

Source: https://arxiv.org/abs/2305.18290 (DPO, eq. 7); https://arxiv.org/abs/2403.07691 (ORPO, eq.
6 and 7)
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sublet.losses import Loss, LossMethod
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.model import Model
from sublet_trainer.objectives.objective import RowLoss


def dpo_losses(gained_D: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """
    The loss of each pair (P,), and by how much its better answer is ahead, in nats.

    Args:
        gained_D: by how much each answer's log-probability has grown since training began.
    """
    ahead_P = beta * (gained_D[::2] - gained_D[1::2])
    return -F.logsigmoid(ahead_P), ahead_P


def orpo_losses(mean_logp_D: Tensor, *, beta: float) -> tuple[Tensor, Tensor]:
    """
    The loss of each pair (P,), and by how much its better answer's log-odds are ahead.

    Args:
        mean_logp_D: each answer's log-probability, a token's share of it.
        beta: the weight of the odds ratio beside the better answer's likelihood.
    """
    log_odds_D = mean_logp_D - torch.log(-torch.expm1(mean_logp_D))
    ahead_P = log_odds_D[::2] - log_odds_D[1::2]
    return -mean_logp_D[::2] - beta * F.logsigmoid(ahead_P), ahead_P


class Preference:
    """The mean of the pairs' losses over the step; row weights multiply it."""

    def __init__(self, loss: Loss) -> None:
        self._method = loss.method
        self._beta = loss.beta

    def divisor(self, documents: Sequence[Document]) -> float:
        return len(documents) / 2

    @property
    def needs_start(self) -> bool:
        return self._method is not LossMethod.ORPO

    def row_loss(
        self, model: Model, row: PackedRow, start_logp_S: Tensor | None, *, recomputes: bool
    ) -> RowLoss:
        logp_S = model.log_probs(row, recomputes=recomputes)
        lengths_D = _sums_D(row, torch.ones_like(logp_S))
        if start_logp_S is None:
            loss_P, ahead_P = orpo_losses(_sums_D(row, logp_S) / lengths_D, beta=self._beta)
        else:
            gained_D = _sums_D(row, logp_S - start_logp_S)
            loss_P, ahead_P = dpo_losses(gained_D, beta=self._beta)
        weights_D = _sums_D(row, row.weights_S) / lengths_D
        sums: dict[str, float | Tensor] = {
            "pairs": len(ahead_P),
            "margin": ahead_P.detach().sum(),
            "right": (ahead_P > 0).sum(),
        }
        return RowLoss((loss_P * weights_D[::2]).sum(), sums)

    def metrics(
        self,
        sums: Mapping[str, float],
        *,
        num_examples: int,  # noqa: ARG002  the protocol's
    ) -> dict[str, float]:
        return {
            "margin": sums["margin"] / sums["pairs"],
            "accuracy": sums["right"] / sums["pairs"],
        }


def _sums_D(row: PackedRow, values_S: Tensor) -> Tensor:
    return values_S.new_zeros(row.num_documents).index_add(0, row.documents_S, values_S)
