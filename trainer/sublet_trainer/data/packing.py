"""
Documents laid into rows without padding: what a forward pass takes. What several documents of a row
begin with (a system prompt, the prompt of a group of samples, what two rivals answer) lies there
once, and each goes on from it by itself. Positions count from each document's beginning, so a row
means exactly its documents one by one. What comes after a document's last input is left out. A
document that has a rival lies in one row with it.

Shapes: T tokens of a row or of a document's input, S supervised tokens, D documents of a row.
"""

from bisect import bisect, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sublet_trainer.data.documents import Document
from sublet_trainer.transfers import moved

FEWEST_SHARED: Final = 8
"""Tokens. To share fewer costs attention more than it saves."""

Part = Sequence[Document]
"""What must lie in one row: a document, or two rivals."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Where in a row a document's own tokens are, and those that it goes on from, in order."""

    own: slice
    before: tuple[slice, ...] = ()


@dataclass(frozen=True, slots=True)
class PackedRow:
    """
    `stretches` are the documents' in the order of their tokens in the row; everything else is in
    the order in which the documents came.

    `before_S` are the places whose next token is supervised, `targets_S` those tokens, `weights_S`
    what multiplies their losses. `documents_S` says in which document of the row each is, and
    `advantages_S` that document's advantage; `sampled_logp_S` is NaN where it is not known.
    `rewards` are the documents', 0 where there is none.
    """

    ids_T: Tensor
    positions_T: Tensor
    stretches: tuple[Stretch, ...]
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
    def num_documents(self) -> int:
        return len(self.stretches)

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
    return len(_rows(documents, capacity, at_once))


def num_tokens(documents: Sequence[Document]) -> int:
    return sum(len(document.ids_T) for document in documents)


def inseparable(documents: Sequence[Document]) -> Iterator[list[Document]]:
    """A document, or with it its rival."""
    each = iter(documents)
    for document in each:
        yield [document, next(each)] if document.has_rival else [document]


def deal(parts: Sequence[Part], num_hands: int) -> list[list[Document]]:
    """
    The longest part first, each to a hand that has least to compute with it: hands become equal,
    and what begins alike comes together. Within a hand parts are in order again.
    """
    return [_documents(hand, parts) for hand in _dealt(parts, num_hands)]


def _rows(documents: Sequence[Document], capacity: int, at_once: int) -> list[list[Document]]:
    parts = list(inseparable(documents))
    filled = _filled(parts, capacity)
    even = _dealt(parts, min(len(parts), -(-len(filled) // at_once) * at_once))
    fits = all(hand.num_tokens <= capacity or len(hand.places) == 1 for hand in even)
    return [_documents(hand, parts) for hand in (even if fits else filled)]


def _documents(hand: "_Hand", parts: Sequence[Part]) -> list[Document]:
    return [document for place in sorted(hand.places) for document in parts[place]]


class _Hand:
    """Parts that lie together, and how many tokens there are to compute of them."""

    def __init__(self) -> None:
        self.num_tokens = 0
        self.places: list[int] = []
        self._inputs: list[tuple[bytes, NDArray[np.int32]]] = []

    def num_tokens_with(self, part: Part) -> int:
        total, beside_part = self.num_tokens, list[NDArray[np.int32]]()
        for document in part:
            input_T = _input(document)
            place = bisect(self._inputs, _sortable(input_T), key=itemgetter(0))
            beside = [other_T for _, other_T in self._inputs[max(0, place - 1) : place + 1]]
            shared = [_num_shared(input_T, other_T) for other_T in (*beside, *beside_part)]
            total += len(input_T) - max(shared, default=0)
            beside_part.append(input_T)
        return total

    def add(self, place: int, part: Part) -> None:
        self.num_tokens = self.num_tokens_with(part)
        self.places.append(place)
        for document in part:
            input_T = _input(document)
            insort(self._inputs, (_sortable(input_T), input_T), key=itemgetter(0))


def _filled(parts: Sequence[Part], capacity: int) -> list[_Hand]:
    """In order: a hand is begun when the next part does not fit."""
    hands: list[_Hand] = []
    for place, part in enumerate(parts):
        if not hands or hands[-1].num_tokens_with(part) > capacity:
            hands.append(_Hand())
        hands[-1].add(place, part)
    return hands


def _dealt(parts: Sequence[Part], num_hands: int) -> list[_Hand]:
    """Each part is offered to the hand that has least, and to those that have what is most like."""
    hands = [_Hand() for _ in range(num_hands)]
    taken: list[tuple[bytes, _Hand]] = []
    for place in sorted(range(len(parts)), key=lambda place: -num_tokens(parts[place])):
        part = parts[place]
        words = _sortable(_input(part[0]))
        beside = bisect(taken, words, key=itemgetter(0))
        alike = [hand for _, hand in taken[max(0, beside - 1) : beside + 1]]
        least = min(hands, key=attrgetter("num_tokens"))
        hand = min((least, *alike), key=lambda hand: hand.num_tokens_with(part))
        hand.add(place, part)
        insort(taken, (words, hand), key=itemgetter(0))
    return hands


def _lay_out(documents: Sequence[Document], device: torch.device) -> PackedRow:
    inputs = [_input(one) for one in documents]
    places, stretches = _laid(inputs)
    ids_T, positions_T = np.empty((2, stretches[-1].own.stop), np.int64)
    for input_T, places_T in zip(inputs, places, strict=True):
        ids_T[places_T], positions_T[places_T] = input_T, np.arange(len(input_T))
    # never a document's first token, so there is one before it
    supervised = [np.flatnonzero(one.is_supervised_T) for one in documents]
    documents_S = np.repeat(np.arange(len(documents)), [len(one_S) for one_S in supervised])
    weights_D = np.asarray([one.weight for one in documents], np.float32)
    advantages_D = np.asarray([one.advantage for one in documents], np.float32)

    def joined(parts: Iterable[np.ndarray]) -> Tensor:
        return moved(torch.from_numpy(np.concatenate([*parts])), device)

    by_document = list(zip(documents, places, supervised, strict=True))
    return PackedRow(
        ids_T=joined([ids_T]),
        positions_T=joined([positions_T]),
        stretches=tuple(stretches),
        before_S=joined(places_T[one_S - 1] for _, places_T, one_S in by_document),
        targets_S=joined(one.ids_T[one_S].astype(np.int64) for one, _, one_S in by_document),
        weights_S=joined([weights_D[documents_S]]),
        documents_S=joined([documents_S]),
        advantages_S=joined([advantages_D[documents_S]]),
        sampled_logp_S=joined(map(_sampled_logp, documents)),
        rewards=tuple(one.reward or 0.0 for one in documents),
    )


def _laid(
    inputs: Sequence[NDArray[np.int32]],
) -> tuple[list[NDArray[np.int64]], list[Stretch]]:
    """Where in the row each document's tokens are, and the stretches as they follow there."""
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(inputs)
    stretches: list[Stretch] = []
    last_T, places_T, end = inputs[0][:0], places[0], 0
    for number in sorted(range(len(inputs)), key=lambda number: _sortable(inputs[number])):
        shared_T = places_T[: _num_shared(inputs[number], last_T)]
        last_T = inputs[number]
        own = slice(end, end + len(last_T) - len(shared_T))
        end = own.stop
        stretches.append(Stretch(own, _runs(shared_T)))
        places_T = np.concatenate([shared_T, np.arange(own.start, own.stop)])
        places[number] = places_T
    return places, stretches


def _runs(places_T: NDArray[np.int64]) -> tuple[slice, ...]:
    runs = np.split(places_T, np.flatnonzero(np.diff(places_T) != 1) + 1)
    return tuple(slice(int(run[0]), int(run[-1]) + 1) for run in runs if len(run))


def _num_shared(one_T: NDArray[np.integer], other_T: NDArray[np.integer]) -> int:
    """How many tokens both begin with, if it is worth sharing them."""
    longest = min(len(one_T), len(other_T))
    (differing,) = np.nonzero(one_T[:longest] != other_T[:longest])
    num_shared = int(differing[0]) if len(differing) else longest
    return num_shared if num_shared >= FEWEST_SHARED else 0


def _input(document: Document) -> NDArray[np.int32]:
    """Up to the token before the last supervised one: nothing is predicted from what follows."""
    (supervised_S,) = np.nonzero(document.is_supervised_T)
    return document.ids_T[: max(1, *supervised_S[-1:])]


def _sortable(ids_T: NDArray[np.int32]) -> bytes:
    """Bytes whose order is that of the ids: neighbours share most of all."""
    return ids_T.astype(">u4").tobytes()


def _sampled_logp(document: Document) -> NDArray[np.float32]:
    if document.sampled_logp_S is None:
        return np.full(document.num_supervised, np.nan, np.float32)
    return document.sampled_logp_S
