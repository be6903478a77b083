"""
Resumable uploads: a session that takes bytes in pieces and survives a restart. The session's URI is
the credential, as in the cloud: whoever has it may go on, so it is a secret of whoever started it.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from sqlite3 import Row
from types import MappingProxyType
from typing import Any, Final

from sublet.codec import decode, encode
from sublet.errors import InvalidRequest, NotFound, SubletError
from sublet.local.database import Database
from sublet.local.iam.tokens import Caller
from sublet.local.storage.blobs import Blobs, BlobWriter
from sublet.local.storage.objects import Objects
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.stored_object import StoredObject
from sublet.local.web import HttpError
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS uploads (
    id            TEXT PRIMARY KEY,
    bucket        TEXT NOT NULL,
    name          TEXT NOT NULL,
    settings      TEXT NOT NULL,
    preconditions TEXT NOT NULL,
    caller        TEXT NOT NULL,
    started_at    TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS finished_uploads (
    id          TEXT PRIMARY KEY,
    bucket      TEXT NOT NULL,
    name        TEXT NOT NULL,
    generation  INTEGER NOT NULL,
    finished_at TEXT NOT NULL
) STRICT;
"""
NO_HASHES: Final[Mapping[str, str]] = MappingProxyType({})
_LIFE: Final = timedelta(days=7)
_GRANULE: Final = 256 * 2**10
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(frozen=True, slots=True)
class ContentRange:
    """What a piece says of itself; `first` None is a question about how far the upload is."""

    first: int | None
    last: int | None
    total: int | None

    @classmethod
    def parse(cls, text: str | None, length: int | None) -> "ContentRange":
        if not text:
            return cls(0, None, length)
        found = _CONTENT_RANGE.fullmatch(text)
        if found is None:
            raise InvalidRequest(f"Failed to parse Content-Range header: {text}")
        first, last, total = found.groups()
        return cls(
            int(first) if first else None,
            int(last) if last else None,
            None if total == "*" else int(total),
        )


class Uploads:
    def __init__(self, database: Database, clock: Clock, objects: Objects, blobs: Blobs) -> None:
        self._database = database
        self._clock = clock
        self._objects = objects
        self._blobs = blobs
        self._writers: dict[str, BlobWriter] = {}
        self._turns: dict[str, object] = {}
        database.create_tables(SCHEMA)

    def start(
        self,
        caller: Caller,
        bucket: str,
        name: str,
        settings: Mapping[str, Any],
        preconditions: Preconditions,
    ) -> str:
        """
        Open a session and return its id: 384 random bits, since it is all that a writer needs.
        """
        self._objects.check_may_write(caller, bucket, name, preconditions)
        upload = secrets.token_urlsafe(48)
        self._database.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)",
            upload,
            bucket,
            name,
            json.dumps(dict(settings)),
            encode(preconditions).decode(),
            encode(caller).decode(),
            self._clock.now().isoformat(),
        )
        return upload

    async def append(
        self,
        upload: str,
        piece: ContentRange,
        chunks: AsyncIterator[bytes],
        hashes: Mapping[str, str] = NO_HASHES,
    ) -> StoredObject | int:
        """
        Take a piece, or answer how far the upload is.

        Args:
            hashes: of the whole object, as a sender says them with the last piece.

        Returns:
            The object, once the last byte is in; until then the number of bytes that are kept.

        Raises:
            NotFound: no such session, or it has expired.
            InvalidRequest: the piece does not join what is there.
        """
        if finished := self._finished(upload):
            return finished
        self._row(upload)
        writer = self._writers.get(upload)
        if writer is None:
            writer = self._writers[upload] = self._blobs.writer(upload)
        turn = self._turns[upload] = object()
        if piece.first is not None:
            async for chunk in _new_bytes(piece, writer.size, chunks):
                # Whoever was cut off and came back goes on; what still drips in from before must
                # not.
                if self._turns.get(upload) is not turn:
                    raise ConnectionError("a later request goes on with this upload")
                writer.write(chunk)
        if piece.total is None or writer.size < piece.total:
            return writer.size
        return self._finish(upload, writer, piece.total, hashes)

    def ids(self) -> frozenset[str]:
        """The sessions that are open."""
        return frozenset(row["id"] for row in self._database.rows("SELECT id FROM uploads"))

    def cancel(self, upload: str) -> None:
        if not self._database.execute("DELETE FROM uploads WHERE id = ?", upload):
            raise _no_session()
        self._turns.pop(upload, None)
        if writer := self._writers.pop(upload, None):
            writer.abandon()
        self._blobs.upload_path(upload).unlink(missing_ok=True)

    def forget_expired(self) -> None:
        horizon = (self._clock.now() - _LIFE).isoformat()
        for row in self._database.rows("SELECT id FROM uploads WHERE started_at < ?", horizon):
            self.cancel(row["id"])
        self._database.execute("DELETE FROM finished_uploads WHERE finished_at < ?", horizon)

    def _finish(
        self, upload: str, writer: BlobWriter, total: int, hashes: Mapping[str, str]
    ) -> StoredObject:
        row = self._row(upload)
        if writer.size != total:
            raise InvalidRequest(f"{writer.size} bytes came; {total} were announced")
        try:
            with self._database.transaction():
                stored = self._objects.finalize(
                    decode(row["caller"], Caller),
                    row["bucket"],
                    row["name"],
                    writer.close(),
                    json.loads(row["settings"]) | hashes,
                    decode(row["preconditions"], Preconditions),
                )
                self._database.execute("DELETE FROM uploads WHERE id = ?", upload)
                self._database.execute(
                    "INSERT INTO finished_uploads VALUES (?, ?, ?, ?, ?)",
                    upload,
                    row["bucket"],
                    row["name"],
                    stored.generation,
                    self._clock.now().isoformat(),
                )
        except SubletError:
            self.cancel(upload)
            raise
        del self._writers[upload], self._turns[upload]
        return stored

    def _finished(self, upload: str) -> StoredObject | None:
        """What a session has made: whoever lost the answer to the last piece asks again."""
        row = self._database.row("SELECT * FROM finished_uploads WHERE id = ?", upload)
        return self._objects.require(row["bucket"], row["name"], row["generation"]) if row else None

    def _row(self, upload: str) -> Row:
        row = self._database.row("SELECT * FROM uploads WHERE id = ?", upload)
        if row is None:
            raise _no_session()
        return row


async def _new_bytes(
    piece: ContentRange, num_kept: int, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """What of a piece is not kept yet; bytes that a retry sends again are passed over."""
    assert piece.first is not None
    if piece.first > num_kept:
        raise HttpError(503, f"the piece starts at {piece.first}, but {num_kept} bytes are kept")
    position = piece.first
    async for chunk in chunks:
        known = max(0, min(len(chunk), num_kept - position))
        position += len(chunk)
        if piece.total is not None and position > piece.total:
            raise InvalidRequest(f"more bytes came than the {piece.total} announced")
        if known < len(chunk):
            yield chunk[known:] if known else chunk
    if piece.total is None and piece.last is not None and (position % _GRANULE):
        raise InvalidRequest(f"a piece that is not the last must be a multiple of {_GRANULE}")


def _no_session() -> NotFound:
    return NotFound("The upload session does not exist or has expired.")
