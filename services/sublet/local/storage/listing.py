"""
Lists of objects: pages in the order of names, folded at a delimiter, picked by prefix, offsets or a
glob.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects/list
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

from sublet.errors import InvalidRequest
from sublet.local.storage.object_rows import Cursor, ObjectRows
from sublet.local.storage.stored_object import StoredObject

_MAX_RESULTS: Final = 1000
_GLOB_TOKEN: Final = re.compile(r"\*\*|\*|\?|\[!?[^\]]+\]|\{[^{}]*\}|\\.|.", re.DOTALL)
_TRUE: Final = "true"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    items: list[StoredObject]
    prefixes: list[str]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """What of a bucket is wanted; `state` is as `ObjectRows.walk` has it."""

    prefix: str
    delimiter: str
    includes_trailing_delimiter: bool
    glob: re.Pattern[str] | None
    start: Cursor
    end: str
    max_results: int
    state: str

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> Self:
        """
        Raises:
            InvalidRequest: a parameter is malformed, or two do not go together.
        """
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        glob = query.get("matchGlob", "")
        if glob and delimiter not in ("", "/"):
            raise InvalidRequest(f"got delimiter {delimiter!r}; with matchGlob only '/' goes")
        versions, soft_deleted = (
            query.get(name, "").lower() == _TRUE for name in ("versions", "softDeleted")
        )
        if versions and soft_deleted:
            raise InvalidRequest("versions and softDeleted do not go together; ask for one")
        start = _page_start(query.get("pageToken", ""))
        first = max(prefix, query.get("startOffset", ""))
        return cls(
            prefix=prefix,
            delimiter=delimiter,
            includes_trailing_delimiter=query.get("includeTrailingDelimiter", "").lower() == _TRUE,
            glob=re.compile(glob_pattern(glob)) if glob else None,
            start=start if start.name >= first else Cursor(first),
            end=query.get("endOffset", ""),
            max_results=_max_results(query.get("maxResults")),
            state="softDeleted" if soft_deleted else "all" if versions else "live",
        )

    def folder(self, name: str) -> str:
        """The prefix that stands for a name in the list, or "" if the name stands for itself."""
        if not self.delimiter:
            return ""
        end = name.find(self.delimiter, len(self.prefix))
        return "" if end < 0 else name[: end + len(self.delimiter)]


def list_objects(rows: ObjectRows, bucket: str, query: ListQuery) -> Listing:
    items: list[StoredObject] = []
    prefixes: list[str] = []
    cursor = Cursor(query.start.name, query.start.generation)
    for found in _matching(rows, bucket, query, cursor):
        folder = query.folder(found.name)
        is_new_folder = bool(folder) and prefixes[-1:] != [folder]
        is_item = not folder or (query.includes_trailing_delimiter and found.name == folder)
        if (is_new_folder or is_item) and len(items) + len(prefixes) >= query.max_results:
            return Listing(items=items, prefixes=prefixes, next_page_token=_token(found))
        if is_new_folder:
            prefixes.append(folder)
        if is_item:
            items.append(found)
        elif cursor.name < (after := _after(folder)):
            cursor.name, cursor.generation = after, 0
    return Listing(items=items, prefixes=prefixes, next_page_token="")


def _matching(
    rows: ObjectRows, bucket: str, query: ListQuery, cursor: Cursor
) -> Iterator[StoredObject]:
    for found in rows.walk(bucket, cursor, state=query.state):
        if not found.name.startswith(query.prefix) or (query.end and found.name >= query.end):
            return
        if query.glob is None or query.glob.fullmatch(found.name):
            yield found


def glob_pattern(glob: str) -> str:
    """
    A glob as a regular expression: `*` and `?` stay within a folder, `**` does not.

    Source: https://cloud.google.com/storage/docs/json_api/v1/objects/list#list-objects-and-prefixes-using-glob
    """
    return "".join(_glob_part(found[0]) for found in _GLOB_TOKEN.finditer(glob))


def _glob_part(part: str) -> str:
    match part[0]:
        case "*":
            return r"(?s:.*)" if part == "**" else "[^/]*"
        case "?":
            return "[^/]"
        case "[" if len(part) > 1:
            negated, inner = part[1] == "!", part[1:-1].removeprefix("!")
            escaped = re.sub(r"([\\^\[&~|])", r"\\\1", inner)
            return f"[{'^' if negated else ''}{escaped}]"
        case "{" if len(part) > 1:
            choices = part[1:-1].split(",")
            return f"(?:{'|'.join(glob_pattern(choice) for choice in choices)})"
        case "\\" if len(part) > 1:
            return re.escape(part[1])
    return re.escape(part)


def _after(prefix: str) -> str:
    """The first name beyond all that begin with `prefix`; the prefix is not empty."""
    last = ord(prefix[-1])
    if last == 0x10FFFF:
        return _after(prefix[:-1]) if len(prefix) > 1 else prefix
    return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)  # no surrogates in UTF-8


def _max_results(text: str | None) -> int:
    if text is None:
        return _MAX_RESULTS
    if not text.isdigit():
        raise InvalidRequest(f"got maxResults {text!r}; expected a number")
    return min(int(text) or _MAX_RESULTS, _MAX_RESULTS)


def _token(found: StoredObject) -> str:
    position = json.dumps([found.name, found.generation])
    return base64.urlsafe_b64encode(position.encode()).decode()


def _page_start(token: str) -> Cursor:
    if not token:
        return Cursor()
    try:
        name, generation = json.loads(base64.urlsafe_b64decode(token))
        return Cursor(str(name), int(generation))
    except (ValueError, TypeError):
        raise InvalidRequest(f"got pageToken {token[:40]!r}, which no listing gave") from None
