"""
Objects: generations of bytes and their metadata. A write is visible whole or not at all, together
with the notifications that it causes; an older generation stays readable where the bucket is
versioned.

Source: https://cloud.google.com/storage/docs/json_api/v1/objects
"""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from sqlite3 import Row
from typing import Any, Final
from urllib.parse import quote

from sublet.codec import rfc3339
from sublet.errors import InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import Caller
from sublet.local.storage.blobs import Blobs, HashedBlob
from sublet.local.storage.buckets import Bucket, Buckets
from sublet.local.storage.notifications import EventType, Notifications
from sublet.local.storage.preconditions import Preconditions
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS objects (
    bucket         TEXT NOT NULL REFERENCES buckets (name),
    name           TEXT NOT NULL,
    generation     INTEGER NOT NULL,
    metageneration INTEGER NOT NULL,
    size           INTEGER NOT NULL,
    crc32c         TEXT NOT NULL,
    md5            TEXT NOT NULL,
    blob           TEXT NOT NULL,
    settings       TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL,
    deleted_at     TEXT,
    PRIMARY KEY (bucket, name, generation)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS live_objects ON objects (bucket, name) WHERE deleted_at IS NULL;
CREATE TABLE IF NOT EXISTS generations (last INTEGER NOT NULL) STRICT;
INSERT INTO generations SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM generations);
"""
WRITABLE: Final = frozenset(
    {"cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "contentType"}
    | {"customTime", "eventBasedHold", "metadata", "storageClass", "temporaryHold"}
)
_MAX_NAME_BYTES: Final = 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
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
    deleted_at: datetime | None

    @property
    def etag(self) -> str:
        """The XML API's ETag; the JSON API's resource has its own."""
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

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
            **self.settings,
            "size": str(self.size),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "etag": self.etag,
            "timeCreated": rfc3339(self.created_at),
            "timeFinalized": rfc3339(self.created_at),
            "timeStorageClassUpdated": rfc3339(self.created_at),
            "updated": rfc3339(self.updated_at),
        }
        if self.deleted_at:
            resource["timeDeleted"] = rfc3339(self.deleted_at)
        return resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    items: list[StoredObject]
    prefixes: list[str]
    next_page_token: str


class Objects:
    def __init__(
        self,
        *,
        database: Database,
        clock: Clock,
        iam: Iam,
        buckets: Buckets,
        blobs: Blobs,
        notifications: Notifications,
    ) -> None:
        self._database = database
        self._clock = clock
        self._iam = iam
        self._buckets = buckets
        self._blobs = blobs
        self._notifications = notifications
        database.create_tables(SCHEMA)

    # --- reading ----------------------------------------------------------------------------------

    def get(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        generation: int | None = None,
        preconditions: Preconditions = Preconditions(),  # noqa: B008  immutable
    ) -> StoredObject:
        """
        Raises:
            AccessDenied: before anything is said of whether the object exists.
            NotFound: no such object, or no such generation of it.
        """
        self._authorize(caller, "storage.objects.get", bucket, name)
        found = self._find(bucket, name, generation)
        if found is None:
            raise NotFound(f"No such object: {bucket}/{name}")
        preconditions.check_generation(found.generation, is_read=True)
        preconditions.check_metageneration(found.metageneration, is_read=True)
        return found

    def path_of(self, found: StoredObject) -> Path:
        return self._blobs.path_of(found.blob)

    def list_of(self, caller: Caller, bucket_name: str, query: Mapping[str, str]) -> Listing:
        """
        Names in the order of their UTF-8 bytes; `prefixes` are the folders that a delimiter folds.
        """
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        bucket = self._buckets.unchecked(bucket_name)
        self._iam.authorize(caller, "storage.objects.list", bucket.target(list_prefix=prefix))
        max_results = min(int(query.get("maxResults") or 1000), 1000)
        start = _page_start(query)
        items: list[StoredObject] = []
        prefixes: list[str] = []
        for found in self._matching(bucket_name, query, prefix, start):
            folder = _folder(found.name, prefix, delimiter)
            if folder and prefixes and prefixes[-1] == folder:
                continue
            if len(items) + len(prefixes) == max_results:
                token = base64.urlsafe_b64encode(_position(found, folder).encode()).decode()
                return Listing(items=items, prefixes=prefixes, next_page_token=token)
            if folder:
                prefixes.append(folder)
            else:
                items.append(found)
        return Listing(items=items, prefixes=prefixes, next_page_token="")

    def _matching(
        self, bucket: str, query: Mapping[str, str], prefix: str, start: str
    ) -> Iterator[StoredObject]:
        live_only = "" if query.get("versions", "").lower() == "true" else "AND deleted_at IS NULL"
        start = max(start, prefix, query.get("startOffset", ""))
        end = query.get("endOffset", "")
        rows = self._database.rows(
            f"SELECT * FROM objects WHERE bucket = ? AND name >= ? {live_only} "  # noqa: S608
            "ORDER BY name, generation",
            bucket,
            start,
        )
        for row in rows:
            if not row["name"].startswith(prefix) or (end and row["name"] >= end):
                return
            yield _from_row(row)

    def blobs(self) -> frozenset[str]:
        """The blobs that some generation of some object needs."""
        return frozenset(row["blob"] for row in self._database.rows("SELECT blob FROM objects"))

    # --- writing ----------------------------------------------------------------------------------

    def check_may_write(
        self, caller: Caller, bucket: str, name: str, preconditions: Preconditions
    ) -> None:
        """
        What an upload is told before its bytes are taken; the same is decided again at the end.

        Writing over an object deletes it, so a token that may only create cannot overwrite.
        """
        _check_name(name)
        self._authorize(caller, "storage.objects.create", bucket, name)
        live = self._find(bucket, name, None)
        preconditions.check_generation(live.generation if live else 0)
        if live:
            preconditions.check_metageneration(live.metageneration)
            self._authorize(caller, "storage.objects.delete", bucket, name)

    def finalize(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        blob: HashedBlob,
        settings: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> StoredObject:
        """
        Make a blob the live generation of a name: one winner, and its notification with it.

        Raises:
            InvalidRequest: the caller's checksum is not that of the bytes that came.
            FailedPrecondition: somebody else's generation is live.
        """
        _check_hashes(settings, blob)
        with self._database.transaction():
            self.check_may_write(caller, bucket_name, name, preconditions)
            bucket = self._buckets.unchecked(bucket_name)
            live = self._find(bucket_name, name, None)
            generation = self._next_generation()
            kept = self._blobs.keep(blob)
            if live:
                self._retire(bucket, live, overwritten_by=generation)
            now = self._clock.now().isoformat()
            self._database.execute(
                "INSERT INTO objects VALUES (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, NULL)",
                bucket_name,
                name,
                generation,
                blob.size,
                blob.crc32c,
                blob.md5,
                kept,
                json.dumps({k: v for k, v in settings.items() if k in WRITABLE}),
                now,
                now,
            )
            stored = self._require(bucket_name, name, generation)
            overwritten = {"overwroteGeneration": str(live.generation)} if live else {}
            self._notifications.announce(bucket, stored, EventType.OBJECT_FINALIZE, overwritten)
        return stored

    def patch(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        body: Mapping[str, Any],
        generation: int | None,
        preconditions: Preconditions,
    ) -> StoredObject:
        self._authorize(caller, "storage.objects.update", bucket, name)
        found = self._require(bucket, name, generation)
        preconditions.check_generation(found.generation)
        preconditions.check_metageneration(found.metageneration)
        settings = dict(found.settings)
        for key, value in body.items():
            if key not in WRITABLE:
                continue
            if value is None:
                settings.pop(key, None)
            elif key == "metadata":
                merged = {**settings.get("metadata", {}), **value}
                settings[key] = {k: v for k, v in merged.items() if v is not None}
            else:
                settings[key] = value
        with self._database.transaction():
            self._database.execute(
                "UPDATE objects SET settings = ?, metageneration = metageneration + 1, "
                "updated_at = ? WHERE bucket = ? AND name = ? AND generation = ?",
                json.dumps(settings),
                self._clock.now().isoformat(),
                bucket,
                name,
                found.generation,
            )
            changed = self._require(bucket, name, found.generation)
            self._notifications.announce(
                self._buckets.unchecked(bucket), changed, EventType.OBJECT_METADATA_UPDATE, {}
            )
        return changed

    def delete(
        self,
        caller: Caller,
        bucket_name: str,
        name: str,
        generation: int | None,
        preconditions: Preconditions,
    ) -> None:
        """
        The live object becomes noncurrent in a versioned bucket; a named generation goes for good.
        """
        self._authorize(caller, "storage.objects.delete", bucket_name, name)
        with self._database.transaction():
            found = self._require(bucket_name, name, generation)
            preconditions.check_generation(found.generation)
            preconditions.check_metageneration(found.metageneration)
            bucket = self._buckets.unchecked(bucket_name)
            if generation is None:
                self._retire(bucket, found, overwritten_by=None)
            else:
                self._remove(bucket, found)

    def _retire(self, bucket: Bucket, live: StoredObject, *, overwritten_by: int | None) -> None:
        if not bucket.is_versioned:
            self._remove(bucket, live, overwritten_by=overwritten_by)
            return
        self._database.execute(
            "UPDATE objects SET deleted_at = ? WHERE bucket = ? AND name = ? AND generation = ?",
            self._clock.now().isoformat(),
            live.bucket,
            live.name,
            live.generation,
        )
        self._notifications.announce(
            bucket, live, EventType.OBJECT_ARCHIVE, _overwritten_by(overwritten_by)
        )

    def _remove(
        self, bucket: Bucket, found: StoredObject, *, overwritten_by: int | None = None
    ) -> None:
        self._database.execute(
            "DELETE FROM objects WHERE bucket = ? AND name = ? AND generation = ?",
            found.bucket,
            found.name,
            found.generation,
        )
        self._database.after_commit(lambda: self._blobs.remove(found.blob))
        self._notifications.announce(
            bucket, found, EventType.OBJECT_DELETE, _overwritten_by(overwritten_by)
        )

    # --- looking up -------------------------------------------------------------------------------

    def _authorize(self, caller: Caller, permission: str, bucket: str, name: str) -> None:
        target = self._buckets.unchecked(bucket).object_target(name)
        self._iam.authorize(caller, permission, target)

    def _find(self, bucket: str, name: str, generation: int | None) -> StoredObject | None:
        if generation is None:
            row = self._database.row(
                "SELECT * FROM objects WHERE bucket = ? AND name = ? AND deleted_at IS NULL",
                bucket,
                name,
            )
        else:
            row = self._database.row(
                "SELECT * FROM objects WHERE bucket = ? AND name = ? AND generation = ?",
                bucket,
                name,
                generation,
            )
        return _from_row(row) if row else None

    def _require(self, bucket: str, name: str, generation: int | None) -> StoredObject:
        found = self._find(bucket, name, generation)
        if found is None:
            raise NotFound(f"No such object: {bucket}/{name}")
        return found

    def _next_generation(self) -> int:
        """
        Microseconds, as Cloud Storage's look; never twice, and never back, whatever the clock does.
        """
        now = int(self._clock.now().timestamp() * 1_000_000)
        row = self._database.row(
            "UPDATE generations SET last = max(last + 1, ?) RETURNING last", now
        )
        assert row is not None
        return int(row["last"])


def _from_row(row: Row) -> StoredObject:
    return StoredObject(
        bucket=row["bucket"],
        name=row["name"],
        generation=row["generation"],
        metageneration=row["metageneration"],
        size=row["size"],
        crc32c=row["crc32c"],
        md5=row["md5"],
        blob=row["blob"],
        settings=json.loads(row["settings"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        updated_at=datetime.fromisoformat(row["updated_at"]),
        deleted_at=datetime.fromisoformat(row["deleted_at"]) if row["deleted_at"] else None,
    )


def _check_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= _MAX_NAME_BYTES or "\r" in name or "\n" in name:
        raise InvalidRequest(
            "Object names are 1 to 1024 bytes of UTF-8 without carriage return or line feed."
        )
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise InvalidRequest(f"The object name {name!r} is not allowed.")


def _check_hashes(settings: Mapping[str, Any], blob: HashedBlob) -> None:
    for field, got in (("crc32c", blob.crc32c), ("md5Hash", blob.md5)):
        expected = settings.get(field)
        if expected and expected != got:
            raise InvalidRequest(
                f"Provided {field} {expected!r} does not match the {got!r} of the bytes received."
            )


def _overwritten_by(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"overwrittenByGeneration": str(generation)}


def _folder(name: str, prefix: str, delimiter: str) -> str:
    if not delimiter:
        return ""
    end = name.find(delimiter, len(prefix))
    return "" if end < 0 else name[: end + len(delimiter)]


def _page_start(query: Mapping[str, str]) -> str:
    token = query.get("pageToken", "")
    try:
        return base64.urlsafe_b64decode(token).decode()
    except ValueError:
        raise InvalidRequest(f"got pageToken {token[:40]!r}, which no listing gave") from None


def _position(found: StoredObject, folder: str) -> str:
    return folder or found.name
