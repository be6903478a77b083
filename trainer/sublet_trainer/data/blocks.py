"""
Blocks: stretches of a dataset's object that begin at a line's start, hold about 64 MiB of text, and
are tokenised one at a time. Says which line is unusable and why, never what it holds.

Shapes: T tokens of a document, N tokens of a block, D documents of a block, E examples of a block,
S supervised tokens of a document.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from math import isnan, nan
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sublet.errors import InvalidRequest
from sublet.lines import Line, split_lines
from sublet.losses import Loss, formats_for
from sublet.rows import BadRow, OneKind, Row, parse_row
from sublet_trainer.data.documents import Document, Rendered, Tokeniser, UnfitLogprobs
from sublet_trainer.data.samples import conversations_in

BLOCK_BYTES: Final = 64 * 2**20
"""A byte is at most one token, a token takes 5 bytes here: at most 320 MiB, typically 90."""
_ROWS_AT_ONCE: Final = 256
_DOCUMENTS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [start, end) of the object; `first_line` counts from 1."""

    start: int
    end: int
    first_line: int


@dataclass(frozen=True, slots=True)
class RowTally:
    """
    What became of the rows of a block. Passed over are rows without a supervised token, groups
    without variance, whose rewards tell their samples not apart, and rows that are dropped because
    they are too long.
    """

    num_rows: int = 0
    num_truncated: int = 0
    num_without_supervised_tokens: int = 0
    num_without_variance: int = 0
    num_dropped: int = 0

    def __add__(self, other: "RowTally") -> "RowTally":
        return RowTally(
            self.num_rows + other.num_rows,
            self.num_truncated + other.num_truncated,
            self.num_without_supervised_tokens + other.num_without_supervised_tokens,
            self.num_without_variance + other.num_without_variance,
            self.num_dropped + other.num_dropped,
        )


class _Column:
    """An array that grows in place; a list of pieces would be in memory twice when it is joined."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._content = bytearray()

    def extend(self, values: NDArray[Any]) -> None:
        self._content += values.astype(self._dtype, copy=False).tobytes()

    def array(self) -> NDArray[Any]:
        return np.frombuffer(self._content, self._dtype)


class TokenisedBlock:
    """
    The documents that have something to learn, end to end: 5 bytes a token, 49 a document, and 4 a
    learnt token whose sampling is known. An example is the documents of one row.
    """

    def __init__(self, batches: Iterable[list[Document]], *, drops_long_rows: bool = False) -> None:
        self.tally = RowTally()
        ids, is_supervised = _Column(np.int32), _Column(np.bool_)
        sampled_logp, facts = _Column(np.float32), _Column(_FACTS)
        firsts: list[int] = []
        num_documents = 0
        for documents in batches:
            batch: list[Document] = []
            for _, row in groupby(documents, key=lambda one: one.line):
                example = list(row)
                if drops_long_rows and any(one.is_truncated for one in example):
                    self.tally += RowTally(num_rows=1, num_dropped=1)
                    continue
                learnt = _learnt(example)
                self.tally += _tally(example, learnt)
                if learnt:
                    firsts.append(num_documents + len(batch))
                    batch.extend(learnt)
            for one in batch:
                ids.extend(one.ids_T)
                is_supervised.extend(one.is_supervised_T)
                if one.sampled_logp_S is not None:
                    sampled_logp.extend(one.sampled_logp_S)
            facts.extend(np.array([_facts(one) for one in batch], _FACTS))
            num_documents += len(batch)
        self._ids_N = ids.array()
        self._is_supervised_N = is_supervised.array()
        self._sampled_logp = sampled_logp.array()
        self._facts_D = facts.array()
        self._ends_D = np.cumsum(self._facts_D["length"])
        self._sampled_ends_D = np.cumsum(self._facts_D["num_sampled"])
        self._firsts_E = np.asarray([*firsts, num_documents], np.int64)
        starts_E = (self._ends_D - self._facts_D["length"])[self._firsts_E[:-1]]
        self.lengths_E = np.diff(np.append(starts_E, len(self._ids_N)))

    @property
    def num_examples(self) -> int:
        return len(self.lengths_E)

    def example(self, index: int) -> list[Document]:
        first, end = self._firsts_E[index : index + 2]
        return [self._document(place) for place in range(first, end)]

    def _document(self, index: int) -> Document:
        """Its arrays are its own: views of the block would keep all of it in memory."""
        facts = self._facts_D[index]
        end, sampled_end = int(self._ends_D[index]), int(self._sampled_ends_D[index])
        start = end - int(facts["length"])
        num_sampled, reward = int(facts["num_sampled"]), float(facts["reward"])
        return Document(
            ids_T=self._ids_N[start:end].copy(),
            is_supervised_T=self._is_supervised_N[start:end].copy(),
            weight=float(facts["weight"]),
            is_truncated=False,
            line=int(facts["line"]),
            reward=None if isnan(reward) else reward,
            advantage=float(facts["advantage"]),
            has_rival=bool(facts["has_rival"]),
            sampled_logp_S=self._sampled_logp[sampled_end - num_sampled : sampled_end].copy()
            if num_sampled
            else None,
        )


_FACTS: Final = [
    ("length", np.int64),
    ("num_sampled", np.int64),
    ("weight", np.float64),
    ("line", np.int64),
    ("reward", np.float64),
    ("advantage", np.float64),
    ("has_rival", np.bool_),
]
"""Of each document beside its tokens."""


def _facts(one: Document) -> tuple[int, int, float, int, float, float, bool]:
    num_sampled = 0 if one.sampled_logp_S is None else len(one.sampled_logp_S)
    reward = nan if one.reward is None else one.reward
    return (
        len(one.ids_T),
        num_sampled,
        one.weight,
        one.line,
        reward,
        one.advantage,
        one.has_rival,
    )


def _learnt(example: list[Document]) -> list[Document]:
    """Those of a row that are trained on: of a preference both or none, of a group if it tells."""
    found = [one for one in example if one.num_supervised and one.weight]
    if example[0].has_rival and len(found) < len(example):
        return []
    return [] if _lacks_variance(example) else found


def _lacks_variance(example: list[Document]) -> bool:
    return example[0].reward is not None and not any(one.advantage for one in example)


def _tally(example: list[Document], learnt: list[Document]) -> RowTally:
    lacks_variance = _lacks_variance(example)
    return RowTally(
        num_rows=1,
        num_truncated=any(one.is_truncated for one in example),
        num_without_supervised_tokens=not learnt and not lacks_variance,
        num_without_variance=lacks_variance,
    )


class BlockReader:
    """
    Args:
        read: yields the object's bytes [start, end) in order.
        url: names the object in messages.
        loss: says what the rows must be and what their rewards weigh; None is a supervised one.
        check: called between batches of rows; raises if the run must stop.
        drops_long_rows: instead of what fits of them being learnt.
    """

    def __init__(
        self,
        read: Callable[[int, int], Iterator[bytes]],
        tokeniser: Tokeniser,
        *,
        url: str,
        size_bytes: int,
        check: Callable[[], None],
        loss: Loss | None = None,
        drops_long_rows: bool = False,
    ) -> None:
        self._read = read
        self._tokeniser = tokeniser
        self._url = url
        self._size_bytes = size_bytes
        self._check = check
        self._loss = loss
        self._drops_long_rows = drops_long_rows

    def cut(self) -> tuple[list[Block], int]:
        """
        Read the object through; return its blocks and how many rows it has.

        Raises:
            InvalidRequest: a line is no usable row.
        """
        starts, num_rows = [(0, 1)], 0
        for line, _ in self._rows(Block(0, self._size_bytes, 1)):
            num_rows += 1
            if line.offset - starts[-1][0] >= BLOCK_BYTES:
                starts.append((line.offset, line.number))
        ends = [start for start, _ in starts[1:]] + [self._size_bytes]
        blocks = [Block(start, end, line) for (start, line), end in zip(starts, ends, strict=True)]
        return blocks, num_rows

    def load(self, block: Block) -> TokenisedBlock:
        """
        Read and tokenise one block.

        Raises:
            InvalidRequest: a line is no usable row.
        """
        return TokenisedBlock(self._documents(block), drops_long_rows=self._drops_long_rows)

    def _documents(self, block: Block) -> Iterator[list[Document]]:
        batch: list[Rendered] = []
        for line, row in self._rows(block):
            try:
                for conversation, worth in conversations_in(row, self._loss):
                    found = self._tokeniser.renderings(conversation, line=line.number, worth=worth)
                    batch.extend(found)
            except BadRow as problem:
                raise self._unusable(line.number, str(problem)) from None
            if len(batch) >= _DOCUMENTS_AT_ONCE:
                yield self._tokenised(batch)
                batch.clear()
        yield self._tokenised(batch)

    def _tokenised(self, batch: list[Rendered]) -> list[Document]:
        try:
            return self._tokeniser.documents(batch)
        except UnfitLogprobs as problem:
            raise self._unusable(problem.line, str(problem)) from None

    def _rows(self, block: Block) -> Iterator[tuple[Line, Row]]:
        """Each row with its line: numbered within the file, its offset within the block."""
        kind, usable = OneKind(), formats_for(self._loss)
        for found in split_lines(self._read(block.start, block.end)):
            line = Line(found.number + block.first_line - 1, found.offset, found.text)
            if found.number % _ROWS_AT_ONCE == 1:
                self._check()
            if line.text is None:
                raise self._unusable(line.number, "is longer than a row may be")
            if not line.text.strip():
                continue
            try:
                row = parse_row(line.text)
                kind.verify(row)
            except BadRow as problem:
                raise self._unusable(line.number, str(problem)) from None
            if row.format not in usable:
                reason = f"is a {row.format} row; this job trains on {' or '.join(usable)} rows"
                raise self._unusable(line.number, reason)
            yield line, row

    def _unusable(self, line_number: int, reason: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self._url} line {line_number}: {reason}; mend the row and upload the file again"
        )
