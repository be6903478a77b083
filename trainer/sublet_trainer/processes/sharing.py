"""
A step's documents dealt out to the ranks, so that each has about as many tokens and all have as
many rows: ranks that split a model between them must run forward and back together. What a rank
gets travels as MessagePack, never as pickle.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from sublet_trainer.data.corpus import Position, StepDocuments
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import (
    PackedRow,
    deal,
    inseparable,
    num_rows,
    num_tokens,
    pack,
)

Divisor = Callable[[Sequence[Document]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """
    One rank's part of a step, and what every rank must know of the whole. It is laid in rows of at
    most `capacity` tokens, `at_once` of which run side by side; `num_rows` is what the fullest rank
    has. Where there are more ranks than documents, some borrow one that does not count.
    """

    documents: list[Document]
    counts: bool
    capacity: int
    at_once: int
    num_rows: int
    divisor: float
    num_tokens: int
    num_supervised: int
    lines: list[int]
    following: Position
    epoch: float

    def rounds(self, device: torch.device) -> Iterator[tuple[list[PackedRow], list[float]]]:
        """
        Rows to run at once, each with what multiplies its loss: 0 for one that only keeps others
        company.
        """
        rows = pack(self.documents, capacity=self.capacity, device=device, at_once=self.at_once)
        idle = self.num_rows - len(rows)
        factors = [float(self.counts)] * len(rows) + [0.0] * idle
        rows += [rows[0]] * idle
        for first in range(0, len(rows), self.at_once):
            now = slice(first, first + self.at_once)
            yield rows[now], factors[now]


def shares_of(
    step: StepDocuments, *, divisor: Divisor, num_ranks: int, capacity: int, at_once: int
) -> list[Share]:
    """One for each rank; for one rank, the documents as they come."""
    together = list(inseparable(step.documents))
    dealt = deal(together, num_ranks)
    shortest = min(together, key=num_tokens)
    most = max(num_rows(part, capacity=capacity, at_once=at_once) for part in dealt)
    return [
        Share(
            documents=part or shortest,
            counts=bool(part),
            capacity=capacity,
            at_once=at_once,
            num_rows=most,
            divisor=divisor(step.documents),
            num_tokens=num_tokens(step.documents),
            num_supervised=sum(document.num_supervised for document in step.documents),
            lines=sorted({document.line for document in step.documents}),
            following=step.following,
            epoch=step.epoch,
        )
        for part in dealt
    ]


def encode_share(share: Share) -> bytes:
    return msgspec.msgpack.encode(share, enc_hook=_to_wire)


def decode_share(content: bytes) -> Share:
    return msgspec.msgpack.decode(content, type=Share, dec_hook=_from_wire)


def _to_wire(value: object) -> tuple[str, tuple[int, ...], bytes]:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    raise NotImplementedError(f"cannot encode {type(value).__name__}")


def _from_wire(_: type, value: Any) -> NDArray[Any]:  # noqa: ANN401  MessagePack is any
    dtype, shape, content = value
    return np.frombuffer(content, dtype).reshape(shape)
