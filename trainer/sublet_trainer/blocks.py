"""
Blocks: stretches of a dataset's object that begin at a line's start, hold about 64 MiB of text, and
are tokenised one at a time. Says which line is unusable and why, never what it holds.

Shapes: T tokens of a document, N tokens of a block, D documents of a block.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from sublet.errors import InvalidRequest
from sublet.rows import BadRow, Line, Row, RowFormat, parse_row, split_lines
from sublet_trainer.documents import Document, Rendered, Tokeniser

BLOCK_BYTES: Final = 64 * 2**20
"""A byte is at most one token, a token takes 5 bytes here: at most 320 MiB, typically 90."""
_ROWS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes [start, end) of the object; `first_line` counts from 1."""

    start: int
    end: int
    first_line: int


@dataclass(frozen=True, slots=True)
class RowTally:
    """What became of the rows of a block. A row without a supervised token is passed over."""

    num_rows: int = 0
    num_truncated: int = 0
    num_without_supervised_tokens: int = 0

    def __add__(self, other: "RowTally") -> "RowTally":
        return RowTally(
            self.num_rows + other.num_rows,
            self.num_truncated + other.num_truncated,
            self.num_without_supervised_tokens + other.num_without_supervised_tokens,
        )


class TokenisedBlock:
    """The documents that have something to learn, end to end: 5 bytes a token, 32 a document."""

    def __init__(self, batches: Iterable[list[Document]]) -> None:
        ids = [np.empty(0, np.int32)]
        is_supervised = [np.empty(0, np.bool_)]
        lengths: list[int] = []
        weights: list[float] = []
        lines: list[int] = []
        self.tally = RowTally()
        for documents in batches:
            kept = [one for one in documents if one.num_supervised and one.weight]
            ids.append(np.concatenate([ids[0], *(one.ids_T for one in kept)]))
            is_supervised.append(
                np.concatenate([is_supervised[0], *(one.is_supervised_T for one in kept)])
            )
            lengths.extend(len(one.ids_T) for one in kept)
            weights.extend(one.weight for one in kept)
            lines.extend(one.line for one in kept)
            num_truncated = sum(one.is_truncated for one in documents)
            self.tally += RowTally(len(documents), num_truncated, len(documents) - len(kept))
        self.lengths_D = np.asarray(lengths, np.int64)
        self._ids_N = np.concatenate(ids)
        self._is_supervised_N = np.concatenate(is_supervised)
        self._ends_D = np.cumsum(self.lengths_D)
        self._weights_D = np.asarray(weights, np.float64)
        self._lines_D = np.asarray(lines, np.int64)

    @property
    def num_documents(self) -> int:
        return len(self.lengths_D)

    def document(self, index: int) -> Document:
        end = int(self._ends_D[index])
        start = end - int(self.lengths_D[index])
        return Document(
            ids_T=self._ids_N[start:end],
            is_supervised_T=self._is_supervised_N[start:end],
            weight=float(self._weights_D[index]),
            is_truncated=False,
            line=int(self._lines_D[index]),
        )


class BlockReader:
    """
    Args:
        read: yields the object's bytes [start, end) in order.
        url: names the object in messages.
        check: called between batches of rows; raises if the run must stop.
    """

    def __init__(
        self,
        read: Callable[[int, int], Iterator[bytes]],
        tokeniser: Tokeniser,
        *,
        url: str,
        size_bytes: int,
        check: Callable[[], None],
    ) -> None:
        self._read = read
        self._tokeniser = tokeniser
        self._url = url
        self._size_bytes = size_bytes
        self._check = check

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
        return TokenisedBlock(self._documents(block))

    def _documents(self, block: Block) -> Iterator[list[Document]]:
        batch: list[Rendered] = []
        for line, row in self._rows(block):
            try:
                batch.append(self._tokeniser.render(row, line=line.number))
            except BadRow as problem:
                raise self._unusable(line, str(problem)) from None
            if len(batch) == _ROWS_AT_ONCE:
                yield self._tokeniser.documents(batch)
                batch.clear()
        yield self._tokeniser.documents(batch)

    def _rows(self, block: Block) -> Iterator[tuple[Line, Row]]:
        """Each row with its line: numbered within the file, its offset within the block."""
        expected: RowFormat | None = None
        for found in split_lines(self._read(block.start, block.end)):
            line = Line(found.number + block.first_line - 1, found.offset, found.text)
            if found.number % _ROWS_AT_ONCE == 1:
                self._check()
            if line.text is None:
                raise self._unusable(line, "is longer than a row may be")
            if not line.text.strip():
                continue
            try:
                row = parse_row(line.text)
            except BadRow as problem:
                raise self._unusable(line, str(problem)) from None
            expected = expected or row.format
            if row.format is not expected:
                raise self._unusable(line, f"is a {row.format} row in a file of {expected} rows")
            yield line, row

    def _unusable(self, line: Line, reason: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self._url} line {line.number}: {reason}; mend the row and upload the file again"
        )
