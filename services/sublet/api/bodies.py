"""
Bodies of requests: JSON in camelCase or snake_case, null as if it were not there. What nobody here
knows is ignored, since newer clients send more, and the answer says so.

Source: https://protobuf.dev/programming-guides/json
"""

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cache
from typing import Any, Final, TypeVar, get_args, get_type_hints

import msgspec
from fastapi import Request, Response

from sublet.api.masks import camel
from sublet.error_details import Detail, bad_fields
from sublet.errors import InvalidRequest

T = TypeVar("T")

MAX_DISPLAY_NAME: Final = 63
IGNORED_HEADER: Final = "x-sublet-ignored-fields"
_MAX_BODY_BYTES: Final = 2**20
_MAX_IGNORED_SHOWN: Final = 20
_SHOWABLE = re.compile(r"[A-Za-z0-9_.]{1,80}")


class Body:
    def __init__(self, content: object, answer: Response) -> None:
        self._content = content
        self._answer = answer

    def read(self, kind: type[T], *, wrapped_in: str = "") -> T:
        """
        Args:
            wrapped_in: the resource's name, under which some callers send what others send bare.

        Raises:
            InvalidRequest: a field is missing or of the wrong type; names it.
        """
        content = _snake(self._content)
        inner = content.get(snake_name(wrapped_in)) if isinstance(content, dict) else None
        content = inner if isinstance(inner, dict) else content
        try:
            read = msgspec.convert(content, kind, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error), details=_details(str(error))) from None
        if ignored := [*_unknown(content, kind)][:_MAX_IGNORED_SHOWN]:
            self._answer.headers[IGNORED_HEADER] = ", ".join(ignored)
        return read


async def body_of(request: Request, response: Response) -> Body:
    """
    Raises:
        InvalidRequest: it is too long, or no JSON.
    """
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > _MAX_BODY_BYTES:
            raise InvalidRequest(f"the body is too long; expected at most {_MAX_BODY_BYTES} bytes")
    try:
        return Body(msgspec.json.decode(content or b"{}"), response)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _details(problem: str) -> list[Detail]:
    """
    Args:
        problem: in msgspec's words: ... missing required field `x` - at `$.a[0].b`
    """
    place = re.search(r" - at `\$\.?(.*)`$", problem)
    missing = re.search(r"required field `(\w+)`", problem)
    path = ".".join(found[1] for found in (place, missing) if found and found[1])
    if not path:
        return []
    what = problem.partition(" - at ")[0]
    return [bad_fields([(".".join(map(camel, path.split("."))), what)])]


def _snake(value: object) -> Any:  # noqa: ANN401  JSON is any
    """Keys in snake_case; what is null is left out."""
    if isinstance(value, dict):
        return {
            snake_name(str(key)): _snake(item) for key, item in value.items() if item is not None
        }
    return [_snake(item) for item in value] if isinstance(value, list) else value


def checked_display_name(text: str) -> str:
    """
    Raises:
        InvalidRequest: it is too long to be displayed.
    """
    if len(text) > MAX_DISPLAY_NAME:
        raise InvalidRequest.of_field(
            "displayName",
            f"displayName has {len(text)} characters; expected at most {MAX_DISPLAY_NAME}",
        )
    return text


def snake_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def _unknown(content: object, kind: Any, within: str = "") -> Iterator[str]:  # noqa: ANN401
    """Paths of what was sent and is no field; a name that is no name is not repeated."""
    kind = next((k for k in (kind, *get_args(kind)) if is_dataclass(k)), None)
    if kind is None or not isinstance(content, dict):
        return
    known = _kinds_of_fields(kind)
    for name, value in content.items():
        path = f"{within}{name}"
        if name in known:
            yield from _unknown(value, known[name], f"{path}.")
        else:
            yield path if _SHOWABLE.fullmatch(path) else f"{within}?"


@cache
def _kinds_of_fields(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
