"""
Documents laid end to end in rows, without padding: what a forward pass takes. A document is never
split, and positions start anew with each, so a row means exactly its documents one by one.

Shapes: T tokens of a row, S supervised tokens of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sublet_trainer.documents import Document


@dataclass(frozen=True, slots=True)
class PackedRow:
    """
    `before_S` are the places whose next token is supervised, `targets_S` those tokens, `weights_S`
    what multiplies their losses.
    """

    ids_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    before_S: Tensor
    targets_S: Tensor
    weights_S: Tensor

    @property
    def num_tokens(self) -> int:
        return len(self.ids_T)

    @property
    def num_supervised(self) -> int:
        return len(self.targets_S)


def pack(documents: Sequence[Document], *, capacity: int, device: torch.device) -> list[PackedRow]:
    """
    Lay documents into rows of at most `capacity` tokens, in order; a longer one has a row alone.

    The capacity bounds memory. It changes no loss: that is summed over all rows of the step.
    """
    return [_lay_out(row, device) for row in _fill(documents, capacity)]


def _fill(documents: Sequence[Document], capacity: int) -> Iterator[list[Document]]:
    row: list[Document] = []
    num_tokens = 0
    for document in documents:
        if row and num_tokens + len(document.ids_T) > capacity:
            yield row
            row, num_tokens = [], 0
        row.append(document)
        num_tokens += len(document.ids_T)
    if row:
        yield row


def _lay_out(documents: Sequence[Document], device: torch.device) -> PackedRow:
    lengths = [len(one.ids_T) for one in documents]
    ids_T = np.concatenate([one.ids_T for one in documents]).astype(np.int64)
    is_supervised_T = np.concatenate([one.is_supervised_T for one in documents])
    weights_T = np.repeat(np.asarray([one.weight for one in documents], np.float32), lengths)
    (supervised_S,) = np.nonzero(
        is_supervised_T
    )  # never a document's first token, so S - 1 is in it too

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return PackedRow(
        ids_T=tensor(ids_T),
        positions_T=tensor(np.concatenate([np.arange(length) for length in lengths])),
        lengths=tuple(lengths),
        before_S=tensor(supervised_S - 1),
        targets_S=tensor(ids_T[supervised_S]),
        weights_S=tensor(weights_T[supervised_S]),
    )
