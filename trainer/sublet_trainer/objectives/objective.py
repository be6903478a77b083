"""
What a step wants of the model: a loss for each packed row, and what the sum over a step's rows is
divided by. Both are of the step as a whole, so how documents fall into rows, how many rows there
are, and on how many processes, changes no loss.

Shapes: S supervised tokens of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.model import Model


@dataclass(frozen=True, slots=True)
class RowLoss:
    """
    `loss` is the row's part of the step's loss before the division, fp32 (). `sums` are numbers to
    add up over a step's rows, from which the step's metrics are made.
    """

    loss: Tensor
    sums: Mapping[str, float] = field(default_factory=dict)


class Objective(Protocol):
    def divisor(self, documents: Sequence[Document]) -> float:
        """What the losses of a step's rows are divided by: positive, known before any is run."""

    def row_loss(self, model: Model, row: PackedRow, *, recomputes: bool) -> RowLoss: ...

    def metrics(self, sums: Mapping[str, float], *, num_examples: int) -> dict[str, float]:
        """
        What a step's metrics say beyond its loss, before the step is taken.

        Args:
            sums: of all the step's rows.
            num_examples: how many rows of the dataset the step is made of.

        Raises:
            FailedPrecondition: the step must not be taken, nor any after it; says what to do.
        """


class Supervised:
    """Cross-entropy at the supervised tokens, their mean over the step; row weights multiply it."""

    def divisor(self, documents: Sequence[Document]) -> float:
        return sum(document.num_supervised for document in documents)

    def row_loss(self, model: Model, row: PackedRow, *, recomputes: bool) -> RowLoss:
        logp_S = model.log_probs(row, recomputes=recomputes)
        return RowLoss(-(logp_S * row.weights_S).sum())

    def metrics(
        self,
        sums: Mapping[str, float],  # noqa: ARG002  the protocol's
        *,
        num_examples: int,  # noqa: ARG002
    ) -> dict[str, float]:
        return {}
