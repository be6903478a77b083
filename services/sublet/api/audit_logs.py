"""The account's audit log, newest entry first, with the hashes that chain it."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel

from sublet.accounts import Right
from sublet.api.control_plane import Caller, Page, Plane
from sublet.api.lease_wire import audit_entry_to_wire
from sublet.api.pages import list_page
from sublet.audit import AuditEntry
from sublet.errors import InvalidRequest

router = APIRouter()

_FILTERS: Final = {"principal": "principal", "method": "method", "resource": "resource"}


class _Asked(BaseModel):
    startTime: str = ""  # noqa: N815  the wire's
    endTime: str = ""  # noqa: N815
    email: str = ""


@router.get("/v1/accounts/{account}/auditLogs")
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
    where = {"principal": asked.email} if asked.email else {}
    if end and not page.page_token:
        page = page.beginning_after(end.isoformat())
    answer = list_page(
        plane.registry,
        AuditEntry,
        own,
        page,
        audit_entry_to_wire,
        "auditLogs",
        filters=_FILTERS,
        where=where,
    )
    return answer if start is None else _since(start, answer)


def _since(start: datetime, answer: dict[str, Any]) -> dict[str, Any]:
    """Entries come newest first: the first one that is too old ends the list."""
    entries = answer["auditLogs"]
    recent = [entry for entry in entries if datetime.fromisoformat(entry["timestamp"]) >= start]
    token = answer["nextPageToken"] if len(recent) == len(entries) else ""
    return {"auditLogs": recent, "nextPageToken": token}


def _time(text: str, name: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"got {name} {text[:40]!r}; expected an RFC 3339 time") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
