"""
What a step wants of the model: a loss for each packed row, and what the sum over a step's rows is
divided by. Both are of the step as a whole, so how documents fall into rows, how many rows there
are, and on how many processes, changes no loss.

Shapes: S supervised tokens of a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from torch import Tensor

from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.model import Model


@dataclass(frozen=True, slots=True)
class RowLoss:
    """
    `loss` is the row's part of the step's loss before the division, fp32 (). `sums` are numbers to
    add up over a step's rows, from which the step's metrics are made; those that a GPU has still to
    compute are tensors (), without a gradient.
    """

    loss: Tensor
    sums: Mapping[str, float | Tensor] = field(default_factory=dict)

    def __mul__(self, factor: float) -> "RowLoss":
        sums = {name: factor * number for name, number in self.sums.items()}
        return RowLoss(self.loss * factor, sums)


class Objective(Protocol):
    @property
    def needs_start(self) -> bool:
        """Whether a row's loss wants what the model that training started from makes of it."""

    def divisor(self, documents: Sequence[Document]) -> float:
        """What the losses of a step's rows are divided by: positive, known before any is run."""

    def row_loss(
        self, model: Model, row: PackedRow, start_logp_S: Tensor | None, *, recomputes: bool
    ) -> RowLoss:
        """
        Fit to run beside other rows of the step, in a thread each.

        Args:
            start_logp_S: the tokens' log-probabilities when training started, if it needs them.
        """

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

    needs_start: Final = False

    def divisor(self, documents: Sequence[Document]) -> float:
        return sum(document.num_supervised for document in documents)

    def row_loss(
        self,
        model: Model,
        row: PackedRow,
        start_logp_S: Tensor | None = None,  # noqa: ARG002  the protocol's
        *,
        recomputes: bool,
    ) -> RowLoss:
        logp_S = model.log_probs(row, recomputes=recomputes)
        return RowLoss(-(logp_S * row.weights_S).sum())

    def metrics(
        self,
        sums: Mapping[str, float],  # noqa: ARG002  the protocol's
        *,
        num_examples: int,  # noqa: ARG002
    ) -> dict[str, float]:
        return {}
