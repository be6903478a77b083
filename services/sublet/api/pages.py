"""
Lists, a page at a time: newest first unless asked otherwise, by a token that names the last record
shown.

Source: https://google.aip.dev/158, https://google.aip.dev/160
"""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from sublet.api.answers import Answer
from sublet.api.masks import ReadMask, camel
from sublet.codec import encode
from sublet.errors import InvalidRequest
from sublet.names import AccountName
from sublet.ports import Query, R, Record, Registry

MAX_PAGE: Final = 200
_DEFAULT_PAGE: Final = 50
_TERM = re.compile(r'\s*(\w+)\s*=\s*"([^"]*)"\s*')
_AND = re.compile(r"\s+AND\s+(?=\w+\s*=)")
Position = tuple[str, str]
"""The value that a list is ordered by, and the key of the record that has it."""
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
            raise InvalidRequest.of_field(
                "pageSize", f"got pageSize {size[:20]!r}; expected 0 to {MAX_PAGE}"
            )
        return cls(
            page_size=int(size[:9] or 0),
            page_token=value("pageToken", "page_token"),
            filter=value("filter", "filter"),
            order_by=value("orderBy", "order_by"),
            mask=ReadMask.of(query),
        )

    def query(self, account: AccountName, filters: Mapping[str, str], order: str) -> Query:
        """
        Args:
            order: the index field that a list descends by where its caller asks for no order.
        """
        ordered, _, direction = (self.order_by or "default desc").partition(" ")
        orders = _ORDERS if self.order_by else {"default": order}
        if ordered not in orders or direction.strip() not in ("", "asc", "desc"):
            raise InvalidRequest.of_field(
                "orderBy",
                f"got orderBy {self.order_by[:60]!r}; expected name, createTime, name desc or "
                "createTime desc",
            )
        return Query(
            where={"account": account, **_parse_filter(self.filter, filters)},
            order_by=orders[ordered],
            descending=direction.strip() == "desc",
            limit=min(self.page_size or _DEFAULT_PAGE, MAX_PAGE) + 1,
            after=_read_token(self.page_token),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The part of a list, newest first, that comes after `begin` and not after `end`."""

    begin: Position | None = None
    end: Position | None = None

    def holds(self, position: Position) -> bool:
        return self.end is None or position >= self.end


def list_page(
    registry: Registry,
    kind: type[R],
    account: AccountName,
    page: PageRequest,
    present: Callable[[R], Answer],
    key: str,
    *,
    filters: Mapping[str, str],
    where: Mapping[str, str] | None = None,
    order: str = "created_at",
    span: Span = Span(),
) -> dict[str, Any]:
    """
    One page under `key`, with the token of the next one, or "" after the last, and how many there
    are on all pages together.

    Args:
        filters: which fields of the resource a filter may name, and what the index calls them.
        where: what else must be so, whatever the filter says.
        order: the index field that the list descends by where its caller asks for no order.
        span: which part of the list; it needs the default order.
    """
    query = page.query(account, filters, order)
    query = replace(query, where={**query.where, **(where or {})}, after=query.after or span.begin)
    found = [
        stored.record
        for stored in registry.find(kind, query)
        if span.holds(_position(stored.record, query))
    ]
    shown = found[: query.limit - 1]
    is_last = len(found) < query.limit
    return {
        key: [page.mask.applied_to(present(record).to_json()) for record in shown],
        "nextPageToken": "" if is_last else _token(_position(shown[-1], query)),
        "totalSize": _total(registry, kind, query, span),
    }


def _total(registry: Registry, kind: type[R], query: Query, span: Span) -> int:
    total = registry.count(kind, replace(query, after=span.begin))
    beyond = registry.count(kind, replace(query, after=span.end)) if span.end else 0
    return max(0, total - beyond)


def _position(record: Record, query: Query) -> Position:
    return record.index().get(query.order_by, ""), record.key


def _parse_filter(text: str, filters: Mapping[str, str]) -> dict[str, str]:
    """`field="value"` joined by AND; whatever else is refused rather than guessed."""
    terms: dict[str, str] = {}
    for part in _AND.split(text) if text.strip() else ():
        found = _TERM.fullmatch(part)
        indexed = filters.get(camel(found[1])) if found else None
        if found is None or indexed is None:
            raise InvalidRequest.of_field(
                "filter",
                f'got filter {part[:60]!r}; expected FIELD="VALUE" joined by AND, where FIELD is '
                f"one of {', '.join(filters)}",
            )
        if terms.setdefault(indexed, found[2]) != found[2]:
            raise InvalidRequest.of_field(
                "filter", f"the filter gives {found[1]} two values; nothing can have both"
            )
    return terms


def _token(position: Position) -> str:
    return base64.urlsafe_b64encode(encode(position)).decode()


def _read_token(token: str) -> Position | None:
    if not token:
        return None
    try:
        value, key = msgspec.json.decode(base64.urlsafe_b64decode(token), type=Position)
    except (ValueError, msgspec.MsgspecError):
        raise InvalidRequest.of_field(
            "pageToken", f"got pageToken {token[:40]!r}, which no list gave"
        ) from None
    return value, key
