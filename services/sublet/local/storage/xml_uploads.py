"""
Multipart uploads of the XML API: parts come in any order, several at once, and are joined at the
end.

Source: https://cloud.google.com/storage/docs/multipart-uploads
"""

import asyncio
import base64
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from sqlite3 import Row
from typing import Any, Final

from sublet.codec import decode, encode
from sublet.errors import Conflict, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.tokens import Caller
from sublet.local.storage.blobs import Blobs, HashedBlob, concatenated
from sublet.local.storage.object_settings import check_hashes
from sublet.local.storage.objects import Objects
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.stored_object import StoredObject
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS xml_uploads (
    id            TEXT PRIMARY KEY,
    bucket        TEXT NOT NULL,
    name          TEXT NOT NULL,
    settings      TEXT NOT NULL,
    preconditions TEXT NOT NULL,
    started_at    TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS xml_parts (
    upload TEXT NOT NULL REFERENCES xml_uploads (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    file   TEXT NOT NULL,
    size   INTEGER NOT NULL,
    etag   TEXT NOT NULL,
    PRIMARY KEY (upload, number)
) STRICT;
"""
_LIFE: Final = timedelta(days=7)
_MAX_PARTS: Final = 10_000
_MIN_PART_BYTES: Final = 5 * 2**20


class InvalidPart(InvalidRequest):
    """Raised when a part that is to be joined is not there, or is another than the caller means."""

    xml_code = "InvalidPart"


class InvalidPartOrder(InvalidRequest):
    """Raised when parts are not listed by rising number."""

    xml_code = "InvalidPartOrder"


class EntityTooSmall(InvalidRequest):
    """Raised when a part that is not the last is under 5 MiB."""

    xml_code = "EntityTooSmall"


class NoSuchUpload(NotFound):
    """Raised for an upload that was never begun, or has ended."""

    xml_code = "NoSuchUpload"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part as whoever completes the upload lists it."""

    number: int
    etag: str


class XmlUploads:
    def __init__(self, database: Database, clock: Clock, objects: Objects, blobs: Blobs) -> None:
        self._database = database
        self._clock = clock
        self._objects = objects
        self._blobs = blobs
        self._being_joined: set[str] = set()
        database.create_tables(SCHEMA)

    def start(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        settings: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> str:
        self._objects.authorize(caller, "storage.multipartUploads.create", bucket, name)
        self._objects.check_may_write(caller, bucket, name, preconditions)
        upload = secrets.token_urlsafe(48)
        self._database.execute(
            "INSERT INTO xml_uploads VALUES (?, ?, ?, ?, ?, ?)",
            upload,
            bucket,
            name,
            json.dumps(dict(settings)),
            encode(preconditions).decode(),
            self._clock.now().isoformat(),
        )
        return upload

    async def put_part(
        self,
        caller: Caller,
        place: tuple[str, str],
        upload: str,
        number: int,
        hashes: Mapping[str, str],
        chunks: AsyncIterator[bytes],
    ) -> HashedBlob:
        """
        Take a part; one of the same number is replaced.

        Args:
            place: the bucket and the object's name.
        """
        if not 1 <= number <= _MAX_PARTS:
            raise InvalidRequest(f"got partNumber {number}; expected 1 to {_MAX_PARTS}")
        self._open(caller, place, upload, "storage.multipartUploads.create")
        file = f"part-{uuid.uuid4().hex}"
        writer = self._blobs.writer(file)
        try:
            async for chunk in chunks:
                writer.write(chunk)
            part = writer.close()
            check_hashes(hashes, part)
            self._open(caller, place, upload, "storage.multipartUploads.create")
        except BaseException:  # whatever it was, nobody will go on with these bytes
            writer.abandon()
            raise
        for row in self._rows(upload):
            if row["number"] == number:
                self._blobs.upload_path(row["file"]).unlink(missing_ok=True)
        self._database.execute(
            "INSERT OR REPLACE INTO xml_parts VALUES (?, ?, ?, ?, ?)",
            upload,
            number,
            file,
            part.size,
            hex_of(part.md5),
        )
        return part

    async def complete(
        self, caller: Caller, place: tuple[str, str], upload: str, parts: list[Part]
    ) -> StoredObject:
        """
        Join the listed parts, and forget the others.

        Raises:
            InvalidPart, InvalidPartOrder, EntityTooSmall: the list is not of what is there.
        """
        row = self._open(caller, place, upload, "storage.multipartUploads.create")
        bucket, name = place
        files = _listed({part["number"]: part for part in self._rows(upload)}, parts)
        writer = self._blobs.writer()
        self._being_joined.add(upload)
        try:
            paths = [self._blobs.upload_path(file) for file in files]
            await asyncio.to_thread(concatenated, paths, writer)
            with self._database.transaction():
                stored = self._objects.finalize(
                    caller,
                    bucket,
                    name,
                    replace(writer.close(), md5=""),
                    json.loads(row["settings"]),
                    decode(row["preconditions"], Preconditions),
                )
                self._forget(upload)
        except BaseException:
            writer.abandon()
            raise
        finally:
            self._being_joined.discard(upload)
        return stored

    def abort(self, caller: Caller, place: tuple[str, str], upload: str) -> None:
        self._open(caller, place, upload, "storage.multipartUploads.abort")
        with self._database.transaction():
            self._forget(upload)

    def parts(self) -> frozenset[str]:
        """The files that some open upload needs."""
        return frozenset(row["file"] for row in self._database.rows("SELECT file FROM xml_parts"))

    def forget_expired(self) -> None:
        horizon = (self._clock.now() - _LIFE).isoformat()
        rows = self._database.rows("SELECT id FROM xml_uploads WHERE started_at < ?", horizon)
        for row in rows:
            with self._database.transaction():
                self._forget(row["id"])

    def _forget(self, upload: str) -> None:
        files = [row["file"] for row in self._rows(upload)]
        self._database.execute("DELETE FROM xml_parts WHERE upload = ?", upload)
        self._database.execute("DELETE FROM xml_uploads WHERE id = ?", upload)

        def unlink() -> None:
            for file in files:
                self._blobs.upload_path(file).unlink(missing_ok=True)

        self._database.after_commit(unlink)

    def _open(self, caller: Caller, place: tuple[str, str], upload: str, permission: str) -> Row:
        """The upload's row, for whoever may go on with it."""
        bucket, name = place
        self._objects.authorize(caller, permission, bucket, name)
        row = self._database.row(
            "SELECT * FROM xml_uploads WHERE id = ? AND bucket = ? AND name = ?",
            upload,
            bucket,
            name,
        )
        if row is None:
            raise NoSuchUpload("The requested upload does not exist, or has ended.")
        if upload in self._being_joined:
            raise Conflict("The upload is being completed by another request.")
        return row

    def _rows(self, upload: str) -> list[Row]:
        return self._database.rows("SELECT * FROM xml_parts WHERE upload = ?", upload)


def hex_of(md5: str) -> str:
    """An MD5 as the XML API's ETags have it."""
    return base64.b64decode(md5).hex()


def _listed(there: Mapping[int, Row], parts: list[Part]) -> list[str]:
    """The files of the parts, in order."""
    numbers = [part.number for part in parts]
    if not parts or numbers != sorted(set(numbers)):
        raise InvalidPartOrder(f"got parts {numbers[:10]}; expected one or more, by rising number")
    for part in parts:
        found = there.get(part.number)
        if found is None or found["etag"] != part.etag:
            raise InvalidPart(
                f"got part {part.number} with ETag {part.etag!r}; there is "
                + ("no such part" if found is None else f"one with ETag {found['etag']!r}")
            )
        if found["size"] < _MIN_PART_BYTES and part is not parts[-1]:
            raise EntityTooSmall(
                f"got part {part.number} of {found['size']} bytes; expected at least "
                f"{_MIN_PART_BYTES} of all but the last"
            )
    return [there[number]["file"] for number in numbers]
