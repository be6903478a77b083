"""
An object's editable metadata: what an upload may set, what PATCH merges and PUT replaces, and what
cannot go back.

Source: https://cloud.google.com/storage/docs/metadata
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sublet.errors import InvalidRequest
from sublet.local.storage.blobs import HashedBlob
from sublet.local.storage.bucket_settings import Bucket, check_storage_class
from sublet.local.storage.retention import (
    check_retention_change,
    check_retention_of_new,
    note_released_hold,
)
from sublet.local.storage.stored_object import HOLD_RELEASED_AT, parse_time, string_map

_TEXTS: Final = frozenset(
    {"cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType"}
)
_FLAGS: Final = frozenset({"eventBasedHold", "temporaryHold"})
WRITABLE: Final = _TEXTS | _FLAGS | {"customTime", "metadata", "retention"}
_AT_CREATION: Final = WRITABLE | {"componentCount", "storageClass"}
_LASTING: Final = ("componentCount", "storageClass", "timeStorageClassUpdated", HOLD_RELEASED_AT)


class BytesDiffer(InvalidRequest):
    """Raised when the bytes that came are not those that the sender has hashed."""

    xml_code = "BadDigest"


def created(settings: Mapping[str, Any], bucket: Bucket, now: datetime) -> dict[str, Any]:
    """What a new generation keeps of the metadata that came with its bytes."""
    kept = {k: v for k, v in settings.items() if k in _AT_CREATION and v is not None}
    kept["storageClass"] = check_storage_class(
        kept.get("storageClass") or bucket.settings["storageClass"]
    )
    if bucket.settings.get("defaultEventBasedHold"):
        kept.setdefault("eventBasedHold", True)
    _check(kept)
    _keep_retention(kept)
    check_retention_of_new(kept.get("retention"), now, is_enabled=bucket.allows_object_retention)
    return kept


def patched(
    before: Mapping[str, Any],
    body: Mapping[str, Any],
    bucket: Bucket,
    now: datetime,
    *,
    overrides: bool,
) -> dict[str, Any]:
    """What it does not name stays; null removes; custom metadata is merged key by key."""
    after = dict(before)
    for key, value in body.items():
        if key not in WRITABLE:
            continue
        if value is None:
            after.pop(key, None)
        elif key == "metadata":
            merged = {**after.get(key, {}), **string_map(value, key)}
            after[key] = {name: text for name, text in merged.items() if text is not None}
        else:
            after[key] = value
    return _changed(before, after, body, bucket, now, overrides=overrides)


def replaced(
    before: Mapping[str, Any],
    body: Mapping[str, Any],
    bucket: Bucket,
    now: datetime,
    *,
    overrides: bool,
) -> dict[str, Any]:
    """What it does not name is gone, but for what only the service writes."""
    after = {key: before[key] for key in _LASTING if key in before}
    after |= {k: v for k, v in body.items() if k in WRITABLE and v is not None}
    return _changed(before, after, body, bucket, now, overrides=overrides)


def check_hashes(settings: Mapping[str, Any], blob: HashedBlob) -> None:
    """
    Raises:
        BytesDiffer: the sender's checksum is not that of the bytes that came.
    """
    for field, got in (("crc32c", blob.crc32c), ("md5Hash", blob.md5)):
        expected = settings.get(field)
        if expected and expected != got:
            raise BytesDiffer(
                f"Provided {field} {expected!r} does not match the {got!r} of the bytes received."
            )


def _changed(
    before: Mapping[str, Any],
    after: dict[str, Any],
    body: Mapping[str, Any],
    bucket: Bucket,
    now: datetime,
    *,
    overrides: bool,
) -> dict[str, Any]:
    _check(after)
    _keep_retention(after)
    _check_custom_time(before, after)
    storage_class = body.get("storageClass")
    if storage_class and storage_class != before.get("storageClass"):
        raise InvalidRequest(
            f"got storageClass {storage_class!r}; an object's class is changed by rewriting it"
        )
    if (new := after.get("retention")) != (old := before.get("retention")):
        check_retention_change(old, new, overrides=overrides)
        check_retention_of_new(new, now, is_enabled=bucket.allows_object_retention)
    note_released_hold(before, after, now)
    return after


def _check(settings: Mapping[str, Any]) -> None:
    for key in _TEXTS & settings.keys():
        if not isinstance(settings[key], str):
            raise InvalidRequest(f"got {key} {settings[key]!r:.80}; expected a string")
    for key in _FLAGS & settings.keys():
        if not isinstance(settings[key], bool):
            raise InvalidRequest(f"got {key} {settings[key]!r:.80}; expected true or false")
    string_map(settings.get("metadata", {}), "metadata")
    if "customTime" in settings:
        parse_time(settings["customTime"], "customTime")
    if not isinstance(settings.get("retention"), dict | None):
        raise InvalidRequest("retention must be an object: mode and retainUntilTime")
    if _retention(settings) and settings.get("eventBasedHold"):
        raise InvalidRequest("An object has an event-based hold or a retention, not both.")


def _check_custom_time(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    if "customTime" not in before:
        return
    old, new = (settings.get("customTime") for settings in (before, after))
    if new is None or parse_time(new, "customTime") < parse_time(old, "customTime"):
        raise InvalidRequest(
            f"got customTime {new!r}; it is {old} and can neither be removed nor go back"
        )


def changes_retention(before: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    return "retention" in body and _retention(body) != before.get("retention")


def _keep_retention(settings: dict[str, Any]) -> None:
    if kept := _retention(settings):
        settings["retention"] = kept
    else:
        settings.pop("retention", None)


def _retention(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is kept of a retention; clients send nulls to take one back."""
    said = settings.get("retention")
    if not isinstance(said, dict):
        return None
    kept = {k: v for k, v in said.items() if k in ("mode", "retainUntilTime") and v is not None}
    return kept or None
