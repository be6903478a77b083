"""
Rows of a JSONL dataset: parsing, checking, and the counting of both in bounded memory. A bad line
is reported by number and reason; its content is the owner's secret and appears in no message.
Registration and trainer parse with the same code, so a row that was admitted is a row that trains.

Source: https://docs.fireworks.ai/fine-tuning/fine-tuning-models (chat and completion rows),
https://docs.fireworks.ai/fine-tuning/secure-fine-tuning (groups of samples with rewards),
https://docs.fireworks.ai/fine-tuning/dpo-fine-tuning (preferences)
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Final

import msgspec

from sublet.lines import MAX_LINE_BYTES, Block, Line, split_blocks
from sublet.plain_rows import MAY_FOLLOW, are_plain

MAX_PROBLEMS_KEPT: Final = 100
MIN_ROWS: Final = 3
MIN_SAMPLES: Final = 2
DEFAULT_REWARD: Final = "score"
MOST_REWARD: Final = 1e9
"""Either way; so that no statistic of a group overflows."""
CUT_SHORT: Final = "length"
"""What OpenAI's API and its like call the end of an answer that reached its limit of tokens."""


class RowFormat(StrEnum):
    """Names on the wire of the API, which has none for preferences."""

    CHAT = "CHAT"
    COMPLETION = "COMPLETION"
    RL = "RL"
    PREFERENCE = "PREFERENCE"


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


class Sample(msgspec.Struct, frozen=True):
    """
    One answer to the prompt of a group, and its rewards: in `evals` by name, or as `score`.

    `logprobs` are those with which its last turn's tokens were sampled, in nats; `finish_reason`
    "length" says that it was cut short, so that its end was not of its choosing.
    """

    messages: list[Message]
    evals: dict[str, float] = {}
    score: float | None = None
    logprobs: list[float] | None = None
    finish_reason: str | None = None

    @property
    def rewards(self) -> dict[str, float]:
        return self.evals if self.score is None else {DEFAULT_REWARD: self.score, **self.evals}


class Prompt(msgspec.Struct, frozen=True):
    messages: list[Message]
    tools: list[msgspec.Raw] | None = None


class Row(msgspec.Struct, frozen=True):
    """
    A chat row has `messages`; a completion row has `prompt` and `completion`; a group has
    `samples`; a preference has `input` and its two outputs.
    """

    messages: list[Message] | None = None
    prompt: str | None = None
    completion: str | None = None
    tools: list[msgspec.Raw] | None = None
    weight: float | None = None
    samples: list[Sample] | None = None
    input: Prompt | None = None
    preferred_output: list[Message] | None = None
    non_preferred_output: list[Message] | None = None

    @property
    def format(self) -> RowFormat:
        if self.messages is not None:
            return RowFormat.CHAT
        if self.samples is not None:
            return RowFormat.RL
        return RowFormat.COMPLETION if self.input is None else RowFormat.PREFERENCE


class BadRow(ValueError):
    """Raised for a line that is no usable row; says why without quoting it."""


_decode: Final = msgspec.json.Decoder(Row).decode
_MOST_LOGPROB: Final = 1e-3
"""Rounding may lift the logarithm of a probability of 1 a little above 0."""


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
        _check_conversation(row.messages, "$.messages")
    elif row.samples is not None:
        _check_group(row.samples)
    elif row.input is not None:
        _check_preference(row, row.input)
    elif row.prompt is None or row.completion is None:
        raise BadRow("has neither `messages` nor both `prompt` and `completion`")
    elif not row.completion:
        raise BadRow("`completion` is empty")
    return row


def _check_conversation(
    messages: list[Message], path: str, *, may_end_silent: bool = False
) -> None:
    if _check_turns(messages, path, may_end_silent=may_end_silent) != "assistant":
        raise BadRow(f"the last turn is not the assistant's - at `{path}`")
    if not messages[-1].is_supervised and not any(one.is_supervised for one in messages):
        raise BadRow(f"every assistant turn has weight 0: nothing to learn - at `{path}`")


def _check_turns(
    messages: list[Message], path: str, previous: str = "", *, may_end_silent: bool = False
) -> str:
    """
    The role of the last turn, or `previous` if there is none.

    Args:
        may_end_silent: the last turn may be "": its end was sampled, and may be rewarded.
    """
    for number, message in enumerate(messages):
        if _is_plain(message) and previous in MAY_FOLLOW.get(message.role, ()):
            previous = message.role
            continue
        is_silent = may_end_silent and number == len(messages) - 1 and message.content == ""
        if problem := _problem_of(message, previous, may_be_empty=is_silent):
            raise BadRow(f"{problem} - at `{path}[{number}]`")
        previous = message.role
    return previous


def _is_plain(message: Message) -> bool:
    """Most turns are just text; what else there is to check takes three times as long."""
    return type(message.content) is str and message.content != "" and message.weight is None


def _problem_of(message: Message, previous: str, *, may_be_empty: bool) -> str:
    if message.role not in MAY_FOLLOW:
        return "role is not one of system, user, assistant, tool"
    if previous not in MAY_FOLLOW[message.role]:
        return f"a {message.role} turn cannot follow {previous or 'nothing'}"
    if message.weight not in (None, 0, 1):
        return "weight is not 0 or 1"
    if isinstance(message.content, list) and any(
        part.type != "text" or part.text is None for part in message.content
    ):
        return "a content part is not text"
    if not message.text and not message.tool_calls and not may_be_empty:
        return "content is empty"
    return ""


def _check_group(samples: list[Sample]) -> None:
    if len(samples) < MIN_SAMPLES:
        raise BadRow(
            f"has {len(samples)} samples; expected at least {MIN_SAMPLES} of one prompt, for a "
            "reward says nothing by itself - at `$.samples`"
        )
    prompt = samples[0].messages[:-1]
    for number, sample in enumerate(samples):
        path = f"$.samples[{number}]"
        _check_conversation(sample.messages, f"{path}.messages", may_end_silent=True)
        if not sample.messages[-1].is_supervised:
            raise BadRow(f"the last turn has weight 0: nothing to learn - at `{path}.messages`")
        if sample.messages[:-1] != prompt:
            raise BadRow(
                "is no answer to the prompt of the first sample: the messages before the last one "
                f"differ - at `{path}.messages`"
            )
        if not sample.rewards:
            raise BadRow(f"has no reward: expected `evals` with numbers by name - at `{path}`")
        if not all(-MOST_REWARD <= reward <= MOST_REWARD for reward in sample.rewards.values()):
            raise BadRow(f"a reward is beyond {MOST_REWARD:.0e} either way - at `{path}.evals`")
        if not all(-inf < logprob <= _MOST_LOGPROB for logprob in sample.logprobs or ()):
            raise BadRow(f"a natural logarithm of a probability is above 0 - at `{path}.logprobs`")


def _check_preference(row: Row, prompt: Prompt) -> None:
    previous = _check_turns(prompt.messages, "$.input.messages")
    for name in ("preferred_output", "non_preferred_output"):
        output: list[Message] = getattr(row, name) or []
        if len(output) != 1:
            raise BadRow(f"has {len(output)} messages; expected 1, the assistant's - at `$.{name}`")
        if _check_turns(output, f"$.{name}", previous) != "assistant":
            raise BadRow(f"the turn is not the assistant's - at `$.{name}[0]`")
        if not output[0].is_supervised:
            raise BadRow(f"the turn has weight 0: nothing to learn - at `$.{name}[0]`")


class OneKind:
    """What all rows of a file have in common: their format, and the size of their groups."""

    def __init__(self) -> None:
        self.format: RowFormat | None = None
        self._num_samples = 0

    @property
    def plainly(self) -> str:
        """The format of all rows, where they have no more in common; none before the first."""
        return self.format if self.format and not self._num_samples else ""

    def verify(self, row: Row) -> None:
        """
        Raises:
            BadRow: it is not as the first one was.
        """
        num_samples = len(row.samples or ())
        if self.format is None:
            self.format, self._num_samples = row.format, num_samples
        if row.format is not self.format:
            raise BadRow(f"is a {row.format} row in a file of {self.format} rows")
        if num_samples != self._num_samples:
            raise BadRow(
                f"has {num_samples} samples; expected {self._num_samples}, as the first row has"
            )


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


@dataclass(slots=True)
class _Tally:
    kind: OneKind = field(default_factory=OneKind)
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

    for block in split_blocks(counted(), max_line_bytes=max_line_bytes):
        if num_rows := _num_plain_rows(block, tally.kind.plainly, max_line_bytes):
            tally.num_rows += num_rows
            continue
        for line in block.lines(max_line_bytes):
            _check_line(line, tally, max_line_bytes, is_last_of_cut=not is_complete)
    if is_complete and tally.num_rows < MIN_ROWS and not tally.num_problems:
        last = Line(tally.num_rows + 1, tally.num_bytes, None)
        tally.complain(
            last, f"the file ends after {tally.num_rows} rows; expected at least {MIN_ROWS}"
        )
    return RowReport(
        format=tally.kind.format,
        num_rows=tally.num_rows,
        num_bytes=tally.num_bytes,
        num_problems=tally.num_problems,
        problems=tuple(tally.problems),
        is_complete=is_complete,
    )


def _num_plain_rows(block: Block, kind: str, max_line_bytes: int) -> int:
    """How many rows a block holds, if each of its lines is beyond doubt a good one."""
    if len(max(block.texts, key=len, default=b"")) > max_line_bytes:
        return 0
    return len(block.texts) if block.texts and are_plain(kind, block.texts) else 0


def _check_line(line: Line, tally: _Tally, max_line_bytes: int, *, is_last_of_cut: bool) -> None:
    if line.text is None:
        tally.complain(line, f"is longer than {max_line_bytes} bytes")
        return
    if not line.text or line.text.isspace():
        return
    if line.number == 1 and line.text.startswith(b"\xef\xbb\xbf"):
        tally.complain(line, "starts with a byte order mark; save the file as plain UTF-8")
        return
    try:
        tally.kind.verify(parse_row(line.text))
    except BadRow as problem:
        if not is_last_of_cut:
            tally.complain(line, str(problem))
        return
    tally.num_rows += 1
