"""
One generation of an object: its metadata, and the JSON resource by which the API shows it.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects#resource
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from sqlite3 import Row
from typing import Any, Final
from urllib.parse import quote

from sublet.codec import rfc3339
from sublet.errors import InvalidRequest

HOLD_RELEASED_AT: Final = "eventBasedHoldReleasedAt"
"""Kept beside the settings: when the event came from which a bucket's retention period counts."""

_MAX_NAME_BYTES: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """
    `md5` is empty for a composite object, which has none; `retention_period_s` is the bucket's.
    """

    bucket: str
    name: str
    generation: int
    metageneration: int
    size: int
    crc32c: str
    md5: str
    blob: str
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    soft_deleted_at: datetime | None = None
    hard_delete_at: datetime | None = None
    retention_period_s: int | None = None

    @classmethod
    def from_row(cls, row: Row) -> "StoredObject":
        columns = dict(row)
        columns["settings"] = json.loads(columns["settings"])
        for column in ("created_at", "updated_at", "deleted_at"):
            columns[column] = _time(columns[column])
        for column in ("soft_deleted_at", "hard_delete_at"):
            columns[column] = _time(columns.get(column))
        period = columns.get("retention_period_s")
        columns["retention_period_s"] = int(period) if period else None
        return cls(**columns)

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    @property
    def storage_class(self) -> str:
        return str(self.settings.get("storageClass", "STANDARD"))

    @property
    def component_count(self) -> int:
        """How many uploads were composed into it."""
        return int(self.settings.get("componentCount", 1))

    @property
    def retained_until(self) -> datetime | None:
        """
        Until when the bucket's policy and the object's own configuration keep it, the later of
        both; a bucket's period begins when an event-based hold ends.
        """
        until = []
        if self.retention_period_s and not self.settings.get("eventBasedHold"):
            released = _time(self.settings.get(HOLD_RELEASED_AT))
            until.append((released or self.created_at) + timedelta(seconds=self.retention_period_s))
        if retention := self.settings.get("retention"):
            until.append(parse_time(retention["retainUntilTime"], "retention.retainUntilTime"))
        return max(until, default=None)

    def to_wire(self, base_url: str) -> dict[str, Any]:
        path = f"b/{self.bucket}/o/{quote(self.name, safe='')}"
        resource: dict[str, Any] = {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{base_url}/storage/v1/{path}",
            "mediaLink": f"{base_url}/download/storage/v1/{path}"
            f"?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "timeStorageClassUpdated": rfc3339(self.created_at),
            **{key: value for key, value in self.settings.items() if key != HOLD_RELEASED_AT},
            "size": str(self.size),
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": rfc3339(self.created_at),
            "timeFinalized": rfc3339(self.created_at),
            "updated": rfc3339(self.updated_at),
        }
        if self.md5:
            resource["md5Hash"] = self.md5
        return resource | self._ends()

    def _ends(self) -> dict[str, str]:
        """The times at which a generation stopped, or will stop, being something."""
        times = {
            "timeDeleted": self.deleted_at,
            "softDeleteTime": self.soft_deleted_at,
            "hardDeleteTime": self.hard_delete_at,
            "retentionExpirationTime": self.retained_until,
        }
        return {name: rfc3339(time) for name, time in times.items() if time}


def check_name(name: str) -> None:
    """
    Raises:
        InvalidRequest: no object may be named so.

    Source: https://cloud.google.com/storage/docs/objects#naming
    """
    if not 1 <= len(name.encode()) <= _MAX_NAME_BYTES or "\r" in name or "\n" in name:
        raise InvalidRequest(
            f"got an object name of {len(name.encode())} bytes; expected 1 to {_MAX_NAME_BYTES} "
            "bytes of UTF-8 without carriage return or line feed"
        )
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise InvalidRequest(f"The object name {name!r} is not allowed.")


def parse_time(text: object, field: str) -> datetime:
    """
    Raises:
        InvalidRequest: not RFC 3339 with a time zone.
    """
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidRequest(f"got {field} {text!r}; expected RFC 3339, as 2030-01-31T12:00:00Z")
    return time.astimezone(UTC)


def string_map(value: object, field: str) -> Mapping[str, Any]:
    """
    Raises:
        InvalidRequest: not an object of strings; null values are let through, they remove a key.
    """
    if not isinstance(value, dict) or any(
        not isinstance(inner, str | None) for inner in value.values()
    ):
        raise InvalidRequest(f"got {field} {value!r:.80}; expected an object of strings")
    return value


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
