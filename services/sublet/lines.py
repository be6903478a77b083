"""
Lines of a stream of bytes, one at a time or many at once, in memory that does not grow with it.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MAX_LINE_BYTES: Final = 16 * 2**20
_BLOCK_BYTES: Final = 2**18


class Line(NamedTuple):
    """`text` is None where the line is longer than allowed; then only its place is known."""

    number: int
    offset: int
    text: bytes | None


def split_lines(chunks: Iterable[bytes], *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    r"""
    Cut a stream of bytes at each newline, holding at most one line and one chunk.

    Only b"\n" ends a line, so that offsets and numbers mean the same to every reader. A line
    longer than `max_line_bytes` is passed over without being held.
    """
    number, offset, held, overlong = 1, 0, bytearray(), 0
    for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            length = overlong + len(held) + end - start
            if overlong or length > max_line_bytes:
                yield Line(number, offset, None)
            elif held:
                yield Line(number, offset, bytes(held) + chunk[start:end])
            else:
                yield Line(number, offset, chunk[start:end])
            number, offset, overlong, start = number + 1, offset + length + 1, 0, end + 1
            held.clear()
        held += memoryview(chunk)[start:]
        if overlong or len(held) > max_line_bytes:
            overlong += len(held)
            held.clear()
    if held or overlong:
        yield Line(number, offset, None if overlong else bytes(held))


class Block(NamedTuple):
    """Whole lines, from line `number` on; `texts` are none where one is longer than allowed."""

    number: int
    offset: int
    texts: list[bytes]

    def lines(self, max_line_bytes: int) -> Iterator[Line]:
        if not self.texts:
            yield Line(self.number, self.offset, None)
        offset = self.offset
        for number, text in enumerate(self.texts, self.number):
            yield Line(number, offset, None if len(text) > max_line_bytes else text)
            offset += len(text) + 1


def split_blocks(chunks: Iterable[bytes], *, max_line_bytes: int) -> Iterator[Block]:
    """As `split_lines`, but many at once, where they lie in one chunk."""
    number, offset, held, overlong = 1, 0, bytearray(), 0
    for chunk in chunks:
        start = 0
        if held or overlong:
            start = chunk.find(b"\n") + 1
            if start:
                length = overlong + len(held) + start - 1
                yield Block(number, offset, [] if overlong else [bytes(held) + chunk[: start - 1]])
                number, offset, overlong = number + 1, offset + length + 1, 0
                held.clear()
        while not (held or overlong) and (end := _end_of_block(chunk, start)):
            texts = chunk[start : end - 1].split(b"\n")
            yield Block(number, offset, texts)
            number, offset, start = number + len(texts), offset + end - start, end
        held += memoryview(chunk)[start:]
        if overlong or len(held) > max_line_bytes:
            overlong += len(held)
            held.clear()
    if held or overlong:
        yield Block(number, offset, [] if overlong else [bytes(held)])


def _end_of_block(chunk: bytes, start: int) -> int:
    """After the last newline that is near, else after the next one; 0 if there is none."""
    near = chunk.rfind(b"\n", start, start + _BLOCK_BYTES) + 1
    return near or chunk.find(b"\n", start) + 1
