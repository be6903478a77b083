"""Lists, a page at a time."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from sublet.errors import InvalidRequest

T = TypeVar("T")
Wire = dict[str, Any]

_MAX_PAGE: Final = 100


def page(field: str, items: Sequence[T], request: Wire, to_wire: Callable[[T], Wire]) -> Wire:
    """
    One page of a list; the token is how far it went.

    Raises:
        InvalidRequest: a token of somewhere else.
    """
    token, size = str(request.get("pageToken", "")), int(request.get("pageSize", 0))
    if (token and not token.isdecimal()) or size < 0:
        raise InvalidRequest(f"got pageToken {token!r} and pageSize {size}; expected one from here")
    start = int(token or 0)
    end = start + min(size or _MAX_PAGE, _MAX_PAGE)
    answer: Wire = {field: [to_wire(item) for item in items[start:end]]}
    if end < len(items):
        answer["nextPageToken"] = str(end)
    return answer
