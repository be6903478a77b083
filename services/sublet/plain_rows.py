"""
Rows as most of them are: turns of text, each of a known role. That a line is such a row follows
from its type, and is proved while it is parsed, in C; a few steps of Python a row are left. What is
not proved here is not refused: `sublet.rows` looks at it turn by turn, and alone gives reasons.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Final, Literal

from msgspec import DecodeError, Meta, Raw, Struct, defstruct
from msgspec.json import Decoder

MAY_FOLLOW: Final[Mapping[str, frozenset[str]]] = {
    "system": frozenset({""}),
    "user": frozenset({"", "system", "assistant"}),
    "assistant": frozenset({"user", "tool"}),
    "tool": frozenset({"assistant", "tool"}),
}
_LONGEST_REMEMBERED: Final = 64
_MOST_REMEMBERED: Final = 4096
_MOST_SHAPES: Final = 64

Text = Annotated[str, Meta(min_length=1)]


class _Turn(Struct, gc=False):
    """Weight 1 is what a turn without a weight has."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text
    weight: Literal[1] | None = None
    name: str | None = None
    tool_calls: list[Raw] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class _System(_Turn, gc=False):
    role: Literal["system"]


class _Ask(_Turn, gc=False):
    role: Literal["user"]


class _Answer(_Turn, gc=False):
    role: Literal["assistant"]


class _Tool(_Turn, gc=False):
    role: Literal["tool"]


_ABSENT: Final = (
    *("messages", "prompt", "completion", "samples"),
    *("input", "preferred_output", "non_preferred_output"),
)
_MORE: Final = (("tools", list[Raw] | None, None), ("weight", float | None, None))


def _decoder(**there: object) -> Callable[[bytes], Any]:
    """For rows that have these fields and no other that tells of what kind a row is."""
    absent = ((name, None, None) for name in _ABSENT if name not in there)
    fields: list[Any] = [*there.items(), *absent, *_MORE]
    return Decoder(defstruct("_Row", fields, kw_only=True, gc=False)).decode


class _Prompt(Struct, gc=False):
    messages: list[_Turn]
    tools: list[Raw] | None = None


_OneAnswer = Annotated[list[_Answer], Meta(min_length=1, max_length=1)]

_chat: Final = _decoder(messages=list[_Turn])
_completion: Final = _decoder(prompt=str, completion=Text)
_preference: Final = _decoder(
    input=_Prompt, preferred_output=_OneAnswer, non_preferred_output=_OneAnswer
)
_role_of: Final = attrgetter("role")
_TURN_OF: Final = {"system": _System, "user": _Ask, "assistant": _Answer, "tool": _Tool}


def are_plain(kind: str, lines: Sequence[bytes]) -> bool:
    """
    Whether each line is a good row of that format, beyond doubt.

    Args:
        kind: the name of a format, as the API has it; of one that is not known here none is plain.
    """
    try:
        return kind in _PROVED and _PROVED[kind](lines)
    except (DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _are_chats(lines: Sequence[bytes]) -> bool:
    return _are_of_one_shape(lines) or all(
        map(_is_answered, {tuple(map(_role_of, row.messages)) for row in map(_chat, lines)})
    )


def _are_of_one_shape(lines: Sequence[bytes]) -> bool:
    """Whether each is as the first one is, turn by turn: not a step of Python is left a row."""
    roles = tuple(map(_role_of, _chat(lines[0]).messages))
    if len(roles) > _LONGEST_REMEMBERED or not _is_answered(roles):
        return False
    try:
        deque(map(_decoder_of(roles), lines), maxlen=0)
    except DecodeError:
        return False
    return True


@lru_cache(_MOST_SHAPES)
def _decoder_of(roles: tuple[str, ...]) -> Callable[[bytes], Any]:
    return _decoder(messages=GenericAlias(tuple, tuple(_TURN_OF[role] for role in roles)))


def _are_completions(lines: Iterable[bytes]) -> bool:
    deque(map(_completion, lines), maxlen=0)
    return True


def _are_preferences(lines: Iterable[bytes]) -> bool:
    return all(
        _is_answered((*map(_role_of, row.input.messages), "assistant"))
        for row in map(_preference, lines)
    )


_PROVED: Final[Mapping[str, Callable[[Sequence[bytes]], bool]]] = {
    "CHAT": _are_chats,
    "COMPLETION": _are_completions,
    "PREFERENCE": _are_preferences,
}


def _is_answered(roles: tuple[str, ...]) -> bool:
    """Whether each may follow the one before, and the last is the assistant's."""
    return _remembered(roles) if len(roles) <= _LONGEST_REMEMBERED else _follow(roles)


def _follow(roles: tuple[str, ...]) -> bool:
    previous = ""
    for role in roles:
        if previous not in MAY_FOLLOW[role]:
            return False
        previous = role
    return previous == "assistant"


_remembered: Final = lru_cache(_MOST_REMEMBERED)(_follow)
