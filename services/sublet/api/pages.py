"""
Lists, a page at a time: newest first unless asked otherwise, by a token that names the last record
shown.

Source: https://google.aip.dev/158, https://google.aip.dev/160
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sublet.api.masks import ReadMask, camel
from sublet.errors import InvalidRequest
from sublet.names import AccountName
from sublet.ports import Query, R, Registry

MAX_PAGE: Final = 200
_DEFAULT_PAGE: Final = 50
_TERM = re.compile(r'\s*(\w+)\s*=\s*"([^"]*)"\s*')
_AND = re.compile(r"\s+AND\s+(?=\w+\s*=)")
_ORDERS: Final = {"createTime": "created_at", "create_time": "created_at", "name": "name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""
    mask: ReadMask = field(default_factory=ReadMask)

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "PageRequest":
        def value(camel: str, snake: str) -> str:
            return query.get(camel) or query.get(snake) or ""

        size = value("pageSize", "page_size")
        if size and not (size.isascii() and size.isdigit()):
            raise InvalidRequest(f"got pageSize {size[:20]!r}; expected 0 to {MAX_PAGE}")
        return cls(
            page_size=int(size[:9] or 0),
            page_token=value("pageToken", "page_token"),
            filter=value("filter", "filter"),
            order_by=value("orderBy", "order_by"),
            mask=ReadMask.of(query),
        )

    def beginning_after(self, value: str) -> "PageRequest":
        """As if the page before had ended with a record of that value."""
        return replace(self, page_token=_token(value, ""))

    def query(self, account: AccountName, filters: Mapping[str, str]) -> Query:
        ordered, _, direction = (self.order_by or "createTime desc").partition(" ")
        if ordered not in _ORDERS or direction.strip() not in ("", "asc", "desc"):
            raise InvalidRequest(
                f"got orderBy {self.order_by[:60]!r}; expected name, createTime, name desc or "
                "createTime desc"
            )
        return Query(
            where={"account": account, **_parse_filter(self.filter, filters)},
            order_by=_ORDERS[ordered],
            descending=direction.strip() == "desc",
            limit=min(self.page_size or _DEFAULT_PAGE, MAX_PAGE) + 1,
            after=_position(self.page_token),
        )


def list_page(
    registry: Registry,
    kind: type[R],
    account: AccountName,
    page: PageRequest,
    present: Callable[[R], dict[str, Any]],
    key: str,
    *,
    filters: Mapping[str, str],
    where: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """
    One page under `key`, with the token of the next one, or "" after the last.

    Args:
        filters: which fields of the resource a filter may name, and what the index calls them.
        where: what else must be so, whatever the filter says.
    """
    query = page.query(account, filters)
    query = replace(query, where={**query.where, **(where or {})})
    found = [stored.record for stored in registry.find(kind, query)]
    shown = found[: query.limit - 1]
    token = ""
    if len(found) == query.limit:
        last = shown[-1]
        token = _token(last.index().get(query.order_by, ""), last.key)
    return {
        key: [page.mask.applied_to(present(record)) for record in shown],
        "nextPageToken": token,
    }


def _parse_filter(text: str, filters: Mapping[str, str]) -> dict[str, str]:
    """`field="value"` joined by AND; whatever else is refused rather than guessed."""
    terms: dict[str, str] = {}
    for part in _AND.split(text) if text.strip() else ():
        found = _TERM.fullmatch(part)
        indexed = filters.get(camel(found[1])) if found else None
        if found is None or indexed is None:
            raise InvalidRequest(
                f'got filter {part[:60]!r}; expected FIELD="VALUE" joined by AND, where FIELD is '
                f"one of {', '.join(filters)}"
            )
        if terms.setdefault(indexed, found[2]) != found[2]:
            raise InvalidRequest(f"the filter gives {found[1]} two values; nothing can have both")
    return terms


def _token(value: str, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([value, key]).encode()).decode()


def _position(token: str) -> tuple[str, str] | None:
    if not token:
        return None
    try:
        value, key = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        raise InvalidRequest(f"got pageToken {token[:40]!r}, which no list gave") from None
    return str(value), str(key)
