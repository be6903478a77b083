"""
IAM conditions, evaluated in three values: TRUE only if every part that matters was understood and
holds, UNKNOWN for whatever this file cannot read, never TRUE by default. The subset of CEL is the
one that IAM documents for Cloud Storage: resource.name, resource.type, resource.service,
request.time, api.getAttribute, startsWith, endsWith, extract, timestamp, comparisons, &&, || and !.

Source: https://cloud.google.com/iam/docs/conditions-attribute-reference
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Final, NoReturn, Protocol


class Truth(Enum):
    TRUE = "TRUE"
    FALSE = "FALSE"
    UNKNOWN = "UNKNOWN"


class _Unknown(Enum):
    VALUE = "unknown"


UNKNOWN: Final = _Unknown.VALUE
Value = str | int | bool | datetime | _Unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    What a condition may ask about. None means: not visible to us, so anything built on it is
    UNKNOWN.
    """

    time: datetime
    resource_name: str | None = None
    resource_type: str | None = None
    resource_service: str | None = "storage.googleapis.com"
    api_attributes: Mapping[str, str] | None = None


def evaluate(expression: str, request: Request) -> Truth:
    """
    Evaluate one CEL expression; a syntax this file does not know makes the whole of it UNKNOWN.
    """
    node = _parsed(expression)
    return Truth.UNKNOWN if node is None else _truth(node.value(request))


def any_of(expressions: Iterable[str]) -> str:
    """One expression that holds whenever any of the readable ones does; "false" if none is."""
    readable = [f"({text})" for text in expressions if _parsed(text) is not None]
    return " || ".join(readable) or "false"


def evaluate_throughout(
    expression: str, request: Request, until: datetime
) -> tuple[Truth, datetime]:
    """
    Evaluate at every instant from `request.time` to `until`, and say when the answer was met.

    Between two timestamps named in the expression nothing changes, so it is enough to look at both
    ends, at each named instant between them, and just beside it. TRUE means true all the way; FALSE
    wins over UNKNOWN, since one false instant is enough to break a job.
    """
    node = _parsed(expression)
    if node is None:
        return Truth.UNKNOWN, request.time
    tick = timedelta(microseconds=1)
    named = {t + shift for t in _instants(node) for shift in (-tick, timedelta(0), tick)}
    instants = sorted({request.time, until} | {t for t in named if request.time < t < until})
    answers = [(_truth(node.value(_at(request, instant))), instant) for instant in instants]
    for wanted in (Truth.FALSE, Truth.UNKNOWN):
        for truth, instant in answers:
            if truth is wanted:
                return wanted, instant
    return Truth.TRUE, until


def _at(request: Request, time: datetime) -> Request:
    return Request(
        time=time,
        resource_name=request.resource_name,
        resource_type=request.resource_type,
        resource_service=request.resource_service,
        api_attributes=request.api_attributes,
    )


def _truth(value: Value) -> Truth:
    return Truth.TRUE if value is True else Truth.FALSE if value is False else Truth.UNKNOWN


# --- nodes ----------------------------------------------------------------------------------------


class _Node(Protocol):
    def value(self, request: Request) -> Value: ...


@dataclass(frozen=True, slots=True)
class _Literal:
    literal: Value

    def value(self, request: Request) -> Value:
        del request
        return self.literal


@dataclass(frozen=True, slots=True)
class _Attribute:
    path: str

    def value(self, request: Request) -> Value:
        match self.path:
            case "request.time":
                return request.time
            case "resource.name":
                found = request.resource_name
            case "resource.type":
                found = request.resource_type
            case "resource.service":
                found = request.resource_service
            case _:
                return UNKNOWN
        return UNKNOWN if found is None else found


@dataclass(frozen=True, slots=True)
class _Call:
    function: str
    arguments: tuple[_Node, ...]

    def value(self, request: Request) -> Value:
        arguments = tuple(argument.value(request) for argument in self.arguments)
        if not all(type(argument) is str for argument in arguments):
            return UNKNOWN
        match (self.function, *arguments):
            case ("startsWith", str(text), str(prefix)):
                return text.startswith(prefix)
            case ("endsWith", str(text), str(suffix)):
                return text.endswith(suffix)
            case ("extract", str(text), str(template)):
                return _extract(text, template)
            case ("timestamp", str(text)):
                return _timestamp(text)
            case ("api.getAttribute", str(name), str(default)) if (
                request.api_attributes is not None
            ):
                return request.api_attributes.get(name, default)
        return UNKNOWN


@dataclass(frozen=True, slots=True)
class _Not:
    operand: _Node

    def value(self, request: Request) -> Value:
        operand = self.operand.value(request)
        return (not operand) if isinstance(operand, bool) else UNKNOWN


@dataclass(frozen=True, slots=True)
class _Junction:
    """&& and ||. A side that decides the answer absorbs whatever the other side is, as in CEL."""

    decides: bool
    operands: tuple[_Node, ...]

    def value(self, request: Request) -> Value:
        values = [operand.value(request) for operand in self.operands]
        if any(value is self.decides for value in values):
            return self.decides
        return (
            (not self.decides) if all(value is (not self.decides) for value in values) else UNKNOWN
        )


@dataclass(frozen=True, slots=True)
class _Comparison:
    operator: str
    left: _Node
    right: _Node

    def value(self, request: Request) -> Value:
        left, right = self.left.value(request), self.right.value(request)
        if UNKNOWN in (left, right) or type(left) is not type(right):
            return UNKNOWN
        if self.operator == "==":
            return left == right
        if self.operator == "!=":
            return left != right
        if isinstance(left, bool):
            return UNKNOWN
        return _ORDERINGS[self.operator](left, right)


_ORDERINGS: Final[Mapping[str, Callable[..., bool]]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


def _instants(node: _Node) -> Iterator[datetime]:
    match node:
        case _Call(function="timestamp", arguments=(_Literal(literal=str(text)),)):
            if isinstance(instant := _timestamp(text), datetime):
                yield instant
        case _Call(arguments=children) | _Junction(operands=children):
            for child in children:
                yield from _instants(child)
        case _Comparison(left=left, right=right):
            yield from _instants(left)
            yield from _instants(right)
        case _Not(operand=operand):
            yield from _instants(operand)


def _timestamp(text: str) -> datetime | _Unknown:
    """
    RFC 3339 to the microsecond: finer fractions cannot be held, so they are UNKNOWN, not rounded.
    """
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", text):
        return UNKNOWN
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return UNKNOWN


def _extract(text: str, template: str) -> str | _Unknown:
    parts = re.fullmatch(r"([^{}]*)\{\w+\}([^{}]*)", template)
    if parts is None:
        return UNKNOWN
    before, after = parts.groups()
    start = text.find(before)
    if start < 0:
        return ""
    start += len(before)
    end = text.find(after, start) if after else len(text)
    return text[start:end] if end >= 0 else ""


# --- parser ---------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\\n\r]|\\.)*"|'(?:[^'\\\n\r]|\\.)*')
      | (?P<integer>\d+(?![\w.]))
      | (?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
      | (?P<operator>&&|\|\||[=!<>]=|[<>!().,])
    )\s*""",
    re.VERBOSE,
)
_ESCAPES: Final = {
    "\\": "\\",
    "'": "'",
    '"': '"',
    "`": "`",
    "?": "?",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_NUM_ARGUMENTS: Final = {
    "startsWith": 2,
    "endsWith": 2,
    "extract": 2,
    "timestamp": 1,
    "api.getAttribute": 2,
}
_METHODS: Final = ("startsWith", "endsWith", "extract")
_MAX_LENGTH: Final = 12_000
_MAX_DEPTH: Final = 64


class _Unreadable(Exception):
    """The expression uses something outside the subset."""


@lru_cache(maxsize=1024)
def _parsed(expression: str) -> _Node | None:
    try:
        return _Parser(expression).parse()
    except _Unreadable:
        return None


class _Parser:
    """Recursive descent over the subset; anything else is unreadable, as a whole."""

    def __init__(self, expression: str) -> None:
        self._tokens = list(_tokens(expression))
        self._next = 0
        self._depth = 0

    def parse(self) -> _Node:
        node = self._or()
        if self._next != len(self._tokens):
            self._fail()
        return node

    def _or(self) -> _Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            self._fail()
        operands = [self._and()]
        while self._take("||"):
            operands.append(self._and())
        self._depth -= 1
        return (
            operands[0] if len(operands) == 1 else _Junction(decides=True, operands=tuple(operands))
        )

    def _and(self) -> _Node:
        operands = [self._comparison()]
        while self._take("&&"):
            operands.append(self._comparison())
        return (
            operands[0]
            if len(operands) == 1
            else _Junction(decides=False, operands=tuple(operands))
        )

    def _comparison(self) -> _Node:
        left = self._negation()
        for operator in ("==", "!=", "<=", ">=", "<", ">"):
            if self._take(operator):
                return _Comparison(operator, left, self._negation())
        return left

    def _negation(self) -> _Node:
        negations = 0
        while self._take("!"):
            negations += 1
        node = self._member()
        for _ in range(
            negations and 2 - negations % 2
        ):  # pairs cancel, but for asking for a boolean
            node = _Not(node)
        return node

    def _member(self) -> _Node:
        node = self._primary()
        while self._take("."):
            kind, name = self._take_any()
            if kind != "name" or name not in _METHODS:
                self._fail()
            node = self._call(name, (node,))
        return node

    def _primary(self) -> _Node:
        kind, text = self._take_any()
        if kind == "string":
            return _Literal(_unquoted(text))
        if kind == "integer":
            return _Literal(int(text))
        if kind == "name":
            return self._named(text)
        if text != "(":
            self._fail()
        node = self._or()
        self._expect(")")
        return node

    def _named(self, name: str) -> _Node:
        if name in ("true", "false"):
            return _Literal(name == "true")
        receiver, _, method = name.rpartition(".")
        if self._peek("("):
            if name in _NUM_ARGUMENTS and name not in _METHODS:
                return self._call(name, ())
            if receiver and method in _METHODS:
                return self._call(method, (_Attribute(receiver),))
            self._fail()
        return _Attribute(name)

    def _call(self, function: str, receiver: tuple[_Node, ...]) -> _Node:
        self._expect("(")
        arguments = [*receiver]
        if not self._take(")"):
            arguments.append(self._or())
            while self._take(","):
                arguments.append(self._or())
            self._expect(")")
        if len(arguments) != _NUM_ARGUMENTS[function]:
            self._fail()
        return _Call(function, tuple(arguments))

    def _peek(self, operator: str) -> bool:
        return self._next < len(self._tokens) and self._tokens[self._next] == ("operator", operator)

    def _take(self, operator: str) -> bool:
        taken = self._peek(operator)
        self._next += taken
        return taken

    def _take_any(self) -> tuple[str, str]:
        if self._next >= len(self._tokens):
            self._fail()
        self._next += 1
        return self._tokens[self._next - 1]

    def _expect(self, operator: str) -> None:
        if not self._take(operator):
            self._fail()

    def _fail(self) -> NoReturn:
        raise _Unreadable


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    if len(expression) > _MAX_LENGTH:
        raise _Unreadable
    position = 0
    while position < len(expression):
        found = _TOKEN.match(expression, position)
        if found is None or found.lastgroup is None:
            raise _Unreadable
        yield found.lastgroup, found[found.lastgroup]
        position = found.end()


def _unquoted(text: str) -> str:
    def replace(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            raise _Unreadable
        return _ESCAPES[escape[1]]

    return re.sub(r"\\(.)", replace, text[1:-1])
