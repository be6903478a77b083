"""
Byte ranges of a download: one span, a start, or a tail.

Source: https://www.rfc-editor.org/rfc/rfc9110#name-range-requests
"""

import re
from typing import Final

from sublet.local.web import HttpError

_SPAN: Final = re.compile(r"bytes=(\d*)-(\d*)")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """
    The span to send, as start and exclusive end; None for the whole object, which several ranges
    and malformed ones get, too.

    Raises:
        HttpError: 416, if nothing of the object lies in the range.
    """
    found = _SPAN.fullmatch(header.strip()) if header else None
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if first and last and int(last) < int(first):
        return None
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        start, end = max(size - int(last), 0), size
    if start >= end:
        raise HttpError(
            416,
            f"got Range {header}; expected one that begins within the {size} bytes",
            {"content-range": f"bytes */{size}"},
        )
    return start, end
