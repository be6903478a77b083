"""
What keeps an object from going: holds, the bucket's retention policy, the object's own retention.

Source: https://cloud.google.com/storage/docs/object-holds,
    https://cloud.google.com/storage/docs/bucket-lock,
    https://cloud.google.com/storage/docs/object-lock
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sublet.codec import rfc3339
from sublet.errors import AccessDenied, InvalidRequest
from sublet.local.storage.stored_object import HOLD_RELEASED_AT, StoredObject, parse_time


class RetentionNotMet(AccessDenied):
    """Raised when something would delete or replace an object before it may go."""

    storage_reason = "retentionPolicyNotMet"


class UnderHold(AccessDenied):
    """Raised when something would delete or replace an object that is held."""


def check_may_go(found: StoredObject, now: datetime, *, stays_noncurrent: bool = False) -> None:
    """
    Args:
        stays_noncurrent: the bucket is versioned, so that nothing is lost; a hold forbids this,
            too, a retention does not.

    Raises:
        UnderHold: a hold must be released first.
        RetentionNotMet: it is too early.
    """
    path = f"{found.bucket}/{found.name}"
    for field, kind in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
        if found.settings.get(field):
            raise UnderHold(
                f"Object '{path}' is under active {kind} hold and cannot be deleted, overwritten "
                f"or archived until it is released: patch {field} to false."
            )
    until = None if stays_noncurrent else found.retained_until
    if until and now < until:
        raise RetentionNotMet(
            f"Object '{path}' is subject to a retention policy or configuration and cannot be "
            f"deleted or overwritten until {rfc3339(until)}"
        )


def note_released_hold(before: Mapping[str, Any], after: dict[str, Any], now: datetime) -> None:
    """An event-based hold that ends starts the bucket's retention period."""
    if before.get("eventBasedHold") and not after.get("eventBasedHold"):
        after[HOLD_RELEASED_AT] = now.isoformat()


def check_retention_of_new(
    retention: Mapping[str, Any] | None, now: datetime, *, is_enabled: bool
) -> None:
    """
    Raises:
        InvalidRequest: malformed, in the past, or the bucket does not allow it.
    """
    if not retention:
        return
    if not is_enabled:
        raise InvalidRequest(
            "Object retention is not enabled for the bucket; it must be created with "
            "enableObjectRetention=true"
        )
    if retention.get("mode") not in ("Locked", "Unlocked"):
        raise InvalidRequest(
            f"got retention.mode {retention.get('mode')!r}; expected Locked or Unlocked"
        )
    if parse_time(retention.get("retainUntilTime"), "retention.retainUntilTime") <= now:
        raise InvalidRequest("retention.retainUntilTime must lie in the future")


def check_retention_change(
    before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, *, overrides: bool
) -> None:
    """
    Raises:
        AccessDenied: a locked retention would shrink, or an unlocked one without the caller
            saying overrideUnlockedRetention.
    """
    if not before or not _is_weaker(before, after):
        return
    if before["mode"] == "Locked":
        raise AccessDenied("A locked retention cannot be removed, unlocked or shortened.")
    if not overrides:
        raise AccessDenied(
            "An unlocked retention is removed or shortened only with "
            "overrideUnlockedRetention=true."
        )


def _is_weaker(before: Mapping[str, Any], after: Mapping[str, Any] | None) -> bool:
    if not after:
        return True
    if before["mode"] == "Locked" and after["mode"] != "Locked":
        return True
    until = (retention["retainUntilTime"] for retention in (before, after))
    old, new = (parse_time(time, "retention.retainUntilTime") for time in until)
    return new < old
