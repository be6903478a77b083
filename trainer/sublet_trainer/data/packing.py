"""
Documents laid end to end in rows, without padding: what a forward pass takes. A document is never
split, and positions start anew with each, so a row means exactly its documents one by one. A
document that has a rival lies beside it in one row.

Shapes: T tokens of a row, S supervised tokens of a row, D documents of a row.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sublet_trainer.data.documents import Document


@dataclass(frozen=True, slots=True)
class PackedRow:
    """
    `before_S` are the places whose next token is supervised, `targets_S` those tokens, `weights_S`
    what multiplies their losses. `documents_S` says in which document of the row each is, and
    `advantages_S` that document's advantage; `sampled_logp_S` is NaN where it is not known.
    `rewards` are the documents', 0 where there is none.
    """

    ids_T: Tensor
    positions_T: Tensor
    lengths: tuple[int, ...]
    before_S: Tensor
    targets_S: Tensor
    weights_S: Tensor
    documents_S: Tensor
    advantages_S: Tensor
    sampled_logp_S: Tensor
    rewards: tuple[float, ...]

    @property
    def num_tokens(self) -> int:
        return len(self.ids_T)

    @property
    def num_supervised(self) -> int:
        return len(self.targets_S)


def pack(
    documents: Sequence[Document], *, capacity: int, device: torch.device, at_once: int = 1
) -> list[PackedRow]:
    """
    Lay documents into rows of about as many tokens each, at most `capacity`; a longer document has
    a row alone. How they fall into rows changes no loss: that is summed over all rows of the step.

    Args:
        at_once: make the number of rows a multiple of this, where there are documents enough.
    """
    return [_lay_out(row, device) for row in _rows(documents, capacity, at_once)]


def num_rows(documents: Sequence[Document], *, capacity: int, at_once: int) -> int:
    return sum(1 for _ in _rows(documents, capacity, at_once))


def _rows(
    documents: Sequence[Document], capacity: int, at_once: int
) -> Iterator[Sequence[Document]]:
    together = list(inseparable(documents))
    lengths = [num_tokens(part) for part in together]
    filled = _filled(lengths, capacity)
    even = deal(lengths, min(len(together), -(-len(filled) // at_once) * at_once))
    fits = all(len(row) == 1 or sum(lengths[place] for place in row) <= capacity for row in even)
    for row in even if fits else filled:
        yield [document for place in row for document in together[place]]


def _filled(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """The places of each row, in order: one is begun when the next does not fit."""
    rows: list[list[int]] = []
    num_tokens = capacity
    for place, length in enumerate(lengths):
        if num_tokens + length > capacity:
            rows.append([])
            num_tokens = 0
        rows[-1].append(place)
        num_tokens += length
    return rows


def deal(lengths: Sequence[int], num_hands: int) -> list[list[int]]:
    """Places for each hand: the longest first, to the hand that has least; then in order again."""
    hands: list[list[int]] = [[] for _ in range(num_hands)]
    least_first = [(0, hand) for hand in range(num_hands)]
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        num_tokens, hand = least_first[0]
        hands[hand].append(place)
        heapreplace(least_first, (num_tokens + lengths[place], hand))
    return [sorted(places) for places in hands]


def num_tokens(documents: Sequence[Document]) -> int:
    return sum(len(document.ids_T) for document in documents)


def inseparable(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """A document, or with it its rival."""
    each = iter(documents)
    for document in each:
        yield [document, next(each)] if document.has_rival else [document]


def _lay_out(documents: Sequence[Document], device: torch.device) -> PackedRow:
    lengths = [len(one.ids_T) for one in documents]
    ids_T = np.concatenate([one.ids_T for one in documents]).astype(np.int64)
    is_supervised_T = np.concatenate([one.is_supervised_T for one in documents])
    # never a document's first token, so S - 1 is in it too
    (supervised_S,) = np.nonzero(is_supervised_T)
    documents_S = np.repeat(np.arange(len(documents)), lengths)[supervised_S]
    weights_D = np.asarray([one.weight for one in documents], np.float32)
    advantages_D = np.asarray([one.advantage for one in documents], np.float32)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return PackedRow(
        ids_T=tensor(ids_T),
        positions_T=tensor(np.concatenate([np.arange(length) for length in lengths])),
        lengths=tuple(lengths),
        before_S=tensor(supervised_S - 1),
        targets_S=tensor(ids_T[supervised_S]),
        weights_S=tensor(weights_D[documents_S]),
        documents_S=tensor(documents_S),
        advantages_S=tensor(advantages_D[documents_S]),
        sampled_logp_S=tensor(np.concatenate([_sampled_logp(one) for one in documents])),
        rewards=tuple(one.reward or 0.0 for one in documents),
    )


def _sampled_logp(document: Document) -> NDArray[np.float32]:
    if document.sampled_logp_S is None:
        return np.full(document.num_supervised, np.nan, np.float32)
    return document.sampled_logp_S
