"""The account's audit log, newest entry first, with the hashes that chain it."""

from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel

from sublet.accounts import Right
from sublet.api.answers import utc
from sublet.api.control_plane import Caller, Page, Plane
from sublet.api.lease_wire import AuditEntryAnswer
from sublet.api.operations import operation
from sublet.api.pages import Position, Span, list_page
from sublet.audit import AuditEntry
from sublet.errors import InvalidRequest

router = APIRouter()

_FILTERS: Final = {"principal": "principal", "method": "method", "resource": "resource"}


class _Asked(BaseModel):
    startTime: str = ""  # noqa: N815  the wire's
    endTime: str = ""  # noqa: N815
    email: str = ""


@router.get("/v1/accounts/{account}/auditLogs")
@operation(gives=AuditEntryAnswer, listed_as="auditLogs", query=("startTime", "endTime", "email"))
def list_audit_logs(
    plane: Plane,
    caller: Caller,
    account: str,
    page: Page,
    asked: Annotated[_Asked, Query()],
) -> dict[str, Any]:
    own = caller.may(Right.ADMINISTER, account)
    start, end = _time(asked.startTime, "startTime"), _time(asked.endTime, "endTime")
    if (start or end) and page.order_by not in ("", "createTime desc"):
        raise InvalidRequest("startTime and endTime need the default order, newest first")
    return list_page(
        plane.registry,
        AuditEntry,
        own,
        page,
        AuditEntryAnswer.of,
        "auditLogs",
        filters=_FILTERS,
        where={"principal": asked.email} if asked.email else {},
        span=Span(begin=_place(end), end=_place(start)),
    )


def _place(time: datetime | None) -> Position | None:
    """Where entries of that time and later have come, newest first."""
    return (time.isoformat(), "") if time else None


def _time(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        return utc(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        raise InvalidRequest.of_field(
            name, f"got {name} {text[:40]!r}; expected an RFC 3339 time"
        ) from None
