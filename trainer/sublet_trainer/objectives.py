"""
What a step wants of the model: a loss for each packed row, and what the sum over a step's rows is
divided by. Both are of the step as a whole, so how documents fall into rows, how many rows there
are, and on how many processes, changes no loss.

Shapes: S supervised tokens of a row.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from sublet_trainer.adapter import LoraModel
from sublet_trainer.documents import Document
from sublet_trainer.packing import PackedRow


class Objective(Protocol):
    def divisor(self, documents: Sequence[Document]) -> float:
        """What the losses of a step's rows are divided by: positive, known before any is run."""

    def loss_sum(self, model: LoraModel, row: PackedRow, *, recomputes: bool) -> Tensor:
        """The row's part of the step's loss before the division; fp32 ()."""


class Supervised:
    """Cross-entropy at the supervised tokens, their mean over the step; row weights multiply it."""

    def divisor(self, documents: Sequence[Document]) -> float:
        return sum(document.num_supervised for document in documents)

    def loss_sum(self, model: LoraModel, row: PackedRow, *, recomputes: bool) -> Tensor:
        logp_S = model.log_probs(row, recomputes=recomputes)
        return -(logp_S * row.weights_S).sum()
