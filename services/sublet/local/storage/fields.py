"""
Partial responses: `fields=items(name,size),nextPageToken` keeps that and drops the rest.

Source: https://cloud.google.com/storage/docs/json_api#partial-response
"""

import re
from typing import Any, Final

from sublet.errors import InvalidRequest

Mask = dict[str, "Mask"]
"""What of an object is wanted; an empty mask wants all of it."""

_TOKEN: Final = re.compile(r"[(),/]|[^(),/\s]+")


def parse_fields(text: str) -> Mask:
    """
    Raises:
        InvalidRequest: parentheses, slashes or commas stand where none may.
    """
    tokens = _TOKEN.findall(text)
    mask = _selection(tokens, text)
    if tokens:
        raise _malformed(text)
    return mask


def select(value: Any, mask: Mask) -> Any:  # noqa: ANN401  whatever JSON has
    """What a mask leaves of a JSON value; lists are looked through."""
    if isinstance(value, list):
        return [select(item, mask) for item in value]
    if not isinstance(value, dict) or not mask:
        return value
    if "*" in mask:
        return {key: select(inner, mask.get(key, mask["*"])) for key, inner in value.items()}
    return {key: select(inner, mask[key]) for key, inner in value.items() if key in mask}


def _selection(tokens: list[str], text: str) -> Mask:
    mask: Mask = {}
    while True:
        name, inner = _field(tokens, text)
        known = mask.get(name)
        mask[name] = inner if known is None else known | inner if known and inner else {}
        if not tokens or tokens[0] != ",":
            return mask
        tokens.pop(0)


def _field(tokens: list[str], text: str) -> tuple[str, Mask]:
    if not tokens or tokens[0] in "(),/":
        raise _malformed(text)
    name = tokens.pop(0)
    if tokens and tokens[0] == "/":
        tokens.pop(0)
        inner_name, inner = _field(tokens, text)
        return name, {inner_name: inner}
    if tokens and tokens[0] == "(":
        tokens.pop(0)
        mask = _selection(tokens, text)
        if not tokens or tokens.pop(0) != ")":
            raise _malformed(text)
        return name, mask
    return name, {}


def _malformed(text: str) -> InvalidRequest:
    return InvalidRequest(f"got fields {text[:80]!r}; expected such as items(name,size),kind")
