"""
Lists, a page at a time: newest first unless asked otherwise, by a token that names the last record
shown.

Source: https://google.aip.dev/158, https://google.aip.dev/160
"""

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sublet.errors import InvalidRequest
from sublet.names import AccountName
from sublet.ports import Query, R, Registry

MAX_PAGE: Final = 200
_DEFAULT_PAGE: Final = 50
_TERM = re.compile(r'\s*(\w+)\s*=\s*"([^"]*)"\s*')
_ORDERS: Final = {"createTime": "created_at", "create_time": "created_at"}
_FIELDS: Final = {"state": "state"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    order_by: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "PageRequest":
        def value(camel: str, snake: str) -> str:
            return query.get(camel) or query.get(snake) or ""

        size = value("pageSize", "page_size")
        if size and not size.isdigit():
            raise InvalidRequest(f"got pageSize {size!r}; expected a number")
        return cls(
            page_size=int(size or 0),
            page_token=value("pageToken", "page_token"),
            filter=value("filter", "filter"),
            order_by=value("orderBy", "order_by"),
        )

    def query(self, account: AccountName) -> Query:
        field, _, direction = (self.order_by or "createTime desc").partition(" ")
        if field not in _ORDERS or direction.strip() not in ("", "asc", "desc"):
            raise InvalidRequest(
                f"got orderBy {self.order_by!r}; expected createTime, or createTime desc"
            )
        return Query(
            where={"account": account, **_parse_filter(self.filter)},
            order_by=_ORDERS[field],
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
) -> dict[str, Any]:
    """One page under `key`, with the token of the next one, or "" after the last."""
    query = page.query(account)
    found = [stored.record for stored in registry.find(kind, query)]
    shown = found[: query.limit - 1]
    token = ""
    if len(found) == query.limit:
        last = shown[-1]
        place = json.dumps([last.index().get(query.order_by, ""), last.key])
        token = base64.urlsafe_b64encode(place.encode()).decode()
    return {key: [present(record) for record in shown], "nextPageToken": token}


def _parse_filter(text: str) -> dict[str, str]:
    """`field="value"` joined by AND; whatever else is refused rather than guessed."""
    terms: dict[str, str] = {}
    for part in text.split(" AND ") if text.strip() else ():
        found = _TERM.fullmatch(part)
        if found is None or found[1] not in _FIELDS:
            raise InvalidRequest(f'got filter {part!r}; expected state="VALUE", joined by AND')
        terms[_FIELDS[found[1]]] = found[2]
    return terms


def _position(token: str) -> tuple[str, str] | None:
    if not token:
        return None
    try:
        field, key = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError):
        raise InvalidRequest(f"got pageToken {token[:40]!r}, which no list gave") from None
    return str(field), str(key)
