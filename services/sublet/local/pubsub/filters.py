"""
Subscription filters: which attributes a message must have to be delivered. The whole grammar that
Pub/Sub documents and no more: what this file accepts, the real service accepts too.

    expression = term { "AND" term } | term { "OR" term }      the two are not mixed without ( )
    term       = [ "NOT" | "-" ] ( "(" expression ")" | comparison )
    comparison = "attributes" ":" key
               | "attributes" "." key ( "=" | "!=" ) string
               | "hasPrefix" "(" "attributes" "." key "," string ")"
    key        = word | string

Source: https://cloud.google.com/pubsub/docs/subscription-message-filter#filtering_syntax
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NoReturn, Protocol

from sublet.errors import InvalidRequest

MAX_BYTES: Final = 256

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<word>\w[\w-]*)
      | (?P<operator>!=|[=:().,-])
      | (?P<end>$)
    )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)
_SIMPLE_ESCAPES: Final = dict(zip("abfnrtv\\\"'?`", "\a\b\f\n\r\t\v\\\"'?`", strict=True))


class Filter(Protocol):
    def matches(self, attributes: Mapping[str, str]) -> bool: ...


@dataclass(frozen=True, slots=True)
class Everything:
    def matches(self, attributes: Mapping[str, str]) -> bool:
        del attributes
        return True


@dataclass(frozen=True, slots=True)
class Has:
    key: str

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return self.key in attributes


@dataclass(frozen=True, slots=True)
class Equals:
    key: str
    value: str

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return attributes.get(self.key) == self.value


@dataclass(frozen=True, slots=True)
class HasPrefix:
    key: str
    prefix: str

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return self.key in attributes and attributes[self.key].startswith(self.prefix)


@dataclass(frozen=True, slots=True)
class Not:
    """Also `!=`, which is true of a message that lacks the key."""

    operand: Filter

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return not self.operand.matches(attributes)


@dataclass(frozen=True, slots=True)
class And:
    operands: tuple[Filter, ...]

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return all(operand.matches(attributes) for operand in self.operands)


@dataclass(frozen=True, slots=True)
class Or:
    operands: tuple[Filter, ...]

    def matches(self, attributes: Mapping[str, str]) -> bool:
        return any(operand.matches(attributes) for operand in self.operands)


@lru_cache(maxsize=1024)
def parse_filter(text: str) -> Filter:
    """
    Read a filter; the empty one lets everything pass.

    Raises:
        InvalidRequest: it is longer than 256 bytes or outside the grammar; says where.
    """
    if not text:
        return Everything()
    if (num_bytes := len(text.encode(errors="surrogatepass"))) > MAX_BYTES:
        raise InvalidRequest(f"filter has {num_bytes} bytes; expected at most {MAX_BYTES}")
    return _Parser(text).parse()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    column: int


class _Parser:
    """Recursive descent; 256 bytes bound its depth."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0

    def parse(self) -> Filter:
        parsed = self._expression()
        if self._peek().kind != "end":
            self._fail("AND, OR (not both without parentheses) or the end")
        return parsed

    def _expression(self) -> Filter:
        operands = [self._term()]
        junction = self._peek()
        if junction.kind != "word" or junction.text not in ("AND", "OR"):
            return operands[0]
        while self._take("word", junction.text):
            operands.append(self._term())
        return And(tuple(operands)) if junction.text == "AND" else Or(tuple(operands))

    def _term(self) -> Filter:
        negated = self._take("word", "NOT") or self._take("operator", "-")
        if self._take("operator", "("):
            term = self._expression()
            self._expect("operator", ")")
        else:
            term = self._comparison()
        return Not(term) if negated else term

    def _comparison(self) -> Filter:
        if self._take("word", "hasPrefix"):
            return self._has_prefix()
        self._expect("word", "attributes")
        if self._take("operator", ":"):
            return Has(self._key())
        self._expect("operator", ".")
        key = self._key()
        differs = self._take("operator", "!=")
        if not differs:
            self._expect("operator", "=")
        equals = Equals(key, self._string())
        return Not(equals) if differs else equals

    def _has_prefix(self) -> Filter:
        self._expect("operator", "(")
        self._expect("word", "attributes")
        self._expect("operator", ".")
        key = self._key()
        self._expect("operator", ",")
        prefix = self._string()
        self._expect("operator", ")")
        return HasPrefix(key, prefix)

    def _key(self) -> str:
        token = self._peek()
        if token.kind != "word":
            return self._string()
        self._next += 1
        return token.text

    def _string(self) -> str:
        token = self._peek()
        if token.kind != "string":
            self._fail('a string in double quotes, such as "com"')
        unquoted = _ESCAPE.sub(self._unescaped, token.text[1:-1])
        self._next += 1
        return unquoted

    def _unescaped(self, escape: re.Match[str]) -> str:
        *numbers, character = escape.groups()
        for digits, base in zip(numbers, (16, 16, 16, 8), strict=True):
            if digits is not None:
                code = int(digits, base)
                if code > 0x10FFFF:
                    self._fail("an escape for a Unicode character")
                return chr(code)
        if character not in _SIMPLE_ESCAPES:
            self._fail(f"a known escape, not \\{character}")
        return _SIMPLE_ESCAPES[character]

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, kind: str, text: str) -> bool:
        token = self._peek()
        taken = token.kind == kind and token.text == text
        self._next += taken
        return taken

    def _expect(self, kind: str, text: str) -> None:
        if not self._take(kind, text):
            self._fail(text)

    def _fail(self, expected: str) -> NoReturn:
        token = self._peek()
        got = token.text or "the end"
        raise InvalidRequest(
            f"Invalid filter {self._text!r}: got {got} at column {token.column}; "
            f"expected {expected}"
        )

    def _split(self) -> Iterator[_Token]:
        position = 0
        while True:
            found = _TOKEN.match(self._text, position)
            if found is None or found.lastgroup is None:
                rest = self._text[position:].strip()
                raise InvalidRequest(f"Invalid filter {self._text!r}: cannot read {rest!r}")
            text = found[found.lastgroup]
            yield _Token(found.lastgroup, text, found.start(found.lastgroup) + 1)
            if found.lastgroup == "end":
                return
            position = found.end()
