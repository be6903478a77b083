"""
Rows of a JSONL dataset: parsing, checking, and the counting of both in bounded memory. A bad line
is reported by number and reason; its content is the owner's secret and appears in no message.
Registration and trainer parse with the same code, so a row that was admitted is a row that trains.

Source: https://docs.fireworks.ai/fine-tuning/fine-tuning-models (chat and completion rows)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

MAX_LINE_BYTES: Final = 16 * 2**20
MAX_PROBLEMS_KEPT: Final = 100
MIN_ROWS: Final = 3

_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_MAY_FOLLOW: Final = {
    "system": frozenset({""}),
    "user": frozenset({"", "system", "assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"assistant", "tool"}),
}


class RowFormat(StrEnum):
    """Names on the wire of the API."""

    CHAT = "CHAT"
    COMPLETION = "COMPLETION"


class Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class Message(msgspec.Struct, frozen=True):
    """One turn. `weight` 0 keeps an assistant turn out of the loss; it stays in the context."""

    role: str
    content: str | list[Part] | None = None
    weight: float | None = None
    name: str | None = None
    tool_calls: list[msgspec.Raw] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text or "" for part in self.content)
        return self.content or ""

    @property
    def is_supervised(self) -> bool:
        return self.role == "assistant" and self.weight != 0


class Row(msgspec.Struct, frozen=True):
    """A chat row has `messages`; a completion row has `prompt` and `completion`."""

    messages: list[Message] | None = None
    prompt: str | None = None
    completion: str | None = None
    tools: list[msgspec.Raw] | None = None
    weight: float | None = None

    @property
    def format(self) -> RowFormat:
        return RowFormat.COMPLETION if self.messages is None else RowFormat.CHAT


class BadRow(ValueError):
    """Raised for a line that is no usable row; says why without quoting it."""


_decode: Final = msgspec.json.Decoder(Row).decode


def parse_row(line: bytes) -> Row:
    """
    Read one line.

    Raises:
        BadRow: it is not JSON, not of the shape of a row, or breaks a rule of conversation.
    """
    try:
        row = _decode(line)
    except UnicodeDecodeError:
        raise BadRow("is not valid UTF-8") from None
    except msgspec.DecodeError as error:
        raise BadRow(str(error)) from None
    except RecursionError:
        raise BadRow("is nested too deeply") from None
    if row.messages is not None:
        _check_conversation(row.messages)
    elif row.prompt is None or row.completion is None:
        raise BadRow("has neither `messages` nor both `prompt` and `completion`")
    elif not row.completion:
        raise BadRow("`completion` is empty")
    return row


def _check_conversation(messages: list[Message]) -> None:
    previous = ""
    for number, message in enumerate(messages):
        where = f"at `$.messages[{number}]`"
        if message.role not in _ROLES:
            raise BadRow(f"role is not one of system, user, assistant, tool - {where}")
        if previous not in _MAY_FOLLOW[message.role]:
            raise BadRow(f"a {message.role} turn cannot follow {previous or 'nothing'} - {where}")
        if message.weight not in (None, 0, 1):
            raise BadRow(f"weight is not 0 or 1 - {where}")
        if isinstance(message.content, list) and any(
            part.type != "text" or part.text is None for part in message.content
        ):
            raise BadRow(f"a content part is not text - {where}")
        if not message.text and not message.tool_calls:
            raise BadRow(f"content is empty - {where}")
        previous = message.role
    if previous != "assistant":
        raise BadRow("the last turn is not the assistant's - at `$.messages`")
    if not any(message.is_supervised for message in messages):
        raise BadRow("every assistant turn has weight 0: nothing to learn - at `$.messages`")


@dataclass(frozen=True, slots=True, kw_only=True)
class RowProblem:
    """`line` counts from 1, `offset` is the line's first byte in the object."""

    line: int
    offset: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowReport:
    """What reading a dataset once showed. `is_complete` is False if the reading stopped early."""

    format: RowFormat | None
    num_rows: int
    num_bytes: int
    num_problems: int
    problems: tuple[RowProblem, ...]
    is_complete: bool


@dataclass(frozen=True, slots=True)
class Line:
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
            text = None if overlong or length > max_line_bytes else bytes(held) + chunk[start:end]
            yield Line(number, offset, text)
            number, offset, overlong, start = number + 1, offset + length + 1, 0, end + 1
            held.clear()
        held += memoryview(chunk)[start:]
        if overlong or len(held) > max_line_bytes:
            overlong += len(held)
            held.clear()
    if held or overlong:
        yield Line(number, offset, None if overlong else bytes(held))


@dataclass(slots=True)
class _Tally:
    format: RowFormat | None = None
    num_rows: int = 0
    num_bytes: int = 0
    num_problems: int = 0
    problems: list[RowProblem] = field(default_factory=list)

    def complain(self, line: Line, reason: str) -> None:
        self.num_problems += 1
        if len(self.problems) < MAX_PROBLEMS_KEPT:
            self.problems.append(RowProblem(line=line.number, offset=line.offset, reason=reason))


def check_rows(
    chunks: Iterable[bytes],
    *,
    max_line_bytes: int = MAX_LINE_BYTES,
    is_out_of_time: Callable[[], bool] = lambda: False,
) -> RowReport:
    """
    Read every row, in memory bounded by one line, and report what is wrong with which.

    Args:
        chunks: the object's bytes, in order.
        is_out_of_time: asked once a chunk; True ends the reading and leaves `is_complete` False.
    """
    tally = _Tally()
    is_complete = True

    def counted() -> Iterator[bytes]:
        nonlocal is_complete
        for chunk in chunks:
            tally.num_bytes += len(chunk)
            yield chunk
            if is_out_of_time():
                is_complete = False
                return

    for line in split_lines(counted(), max_line_bytes=max_line_bytes):
        _check_line(line, tally, max_line_bytes, is_last_of_cut=not is_complete)
    if is_complete and tally.num_rows < MIN_ROWS and not tally.num_problems:
        last = Line(tally.num_rows + 1, tally.num_bytes, None)
        tally.complain(
            last, f"the file ends after {tally.num_rows} rows; expected at least {MIN_ROWS}"
        )
    return RowReport(
        format=tally.format,
        num_rows=tally.num_rows,
        num_bytes=tally.num_bytes,
        num_problems=tally.num_problems,
        problems=tuple(tally.problems),
        is_complete=is_complete,
    )


def _check_line(line: Line, tally: _Tally, max_line_bytes: int, *, is_last_of_cut: bool) -> None:
    if line.text is None:
        tally.complain(line, f"is longer than {max_line_bytes} bytes")
        return
    if not line.text.strip():
        return
    if line.number == 1 and line.text.startswith(b"\xef\xbb\xbf"):
        tally.complain(line, "starts with a byte order mark; save the file as plain UTF-8")
        return
    try:
        row = parse_row(line.text)
    except BadRow as problem:
        if not is_last_of_cut:
            tally.complain(line, str(problem))
        return
    tally.format = tally.format or row.format
    if row.format is not tally.format:
        tally.complain(line, f"is a {row.format} row in a file of {tally.format} rows")
        return
    tally.num_rows += 1
