"""
Resumable uploads: a session that takes bytes in pieces and survives a restart. The session's URI is
the credential, as in the cloud: whoever has it may go on, so it is a secret of whoever started it.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final

from sublet.codec import decode, encode
from sublet.errors import InvalidRequest, NotFound, SubletError
from sublet.local.database import Database
from sublet.local.iam.tokens import Caller
from sublet.local.storage.blobs import Blobs, BlobWriter
from sublet.local.storage.objects import Objects, StoredObject
from sublet.local.storage.preconditions import Preconditions
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
"""
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
        Open a session and return its id: 128 random bits, since it is all that a writer needs.
        """
        self._objects.check_may_write(caller, bucket, name, preconditions)
        upload = secrets.token_urlsafe(48)
        self._database.execute(
            "INSERT INTO uploads VALUES (?, ?, ?, ?, ?, ?, ?)",
            upload,
            bucket,
            name,
            json.dumps(dict(settings)),
            json.dumps(asdict(preconditions)),
            encode(caller).decode(),
            self._clock.now().isoformat(),
        )
        return upload

    async def append(
        self, upload: str, piece: ContentRange, chunks: AsyncIterator[bytes]
    ) -> StoredObject | int:
        """
        Take a piece, or answer how far the upload is.

        Returns:
            The object, once the last byte is in; until then the number of bytes that are kept.

        Raises:
            NotFound: no such session, or it has expired.
            InvalidRequest: the piece does not join what is there.
        """
        row = self._database.row("SELECT * FROM uploads WHERE id = ?", upload)
        if row is None:
            raise NotFound("The upload session does not exist or has expired.")
        writer = self._writers.get(upload)
        if writer is None:
            writer = self._writers[upload] = self._blobs.writer(upload)
        if piece.first is None and piece.total is None:
            return writer.size
        if piece.first is not None:
            await self._take(writer, piece, chunks)
        if piece.total is None or writer.size < piece.total:
            return writer.size
        return self._finish(row["id"], writer, piece.total)

    def ids(self) -> frozenset[str]:
        """The sessions that are open."""
        return frozenset(row["id"] for row in self._database.rows("SELECT id FROM uploads"))

    def scratch(self) -> BlobWriter:
        """Where an upload in one request puts its bytes."""
        return self._blobs.writer()

    def cancel(self, upload: str) -> None:
        if not self._database.execute("DELETE FROM uploads WHERE id = ?", upload):
            raise NotFound("The upload session does not exist or has expired.")
        (self._writers.pop(upload, None) or self._blobs.writer(upload)).abandon()

    def forget_expired(self) -> None:
        horizon = (self._clock.now() - _LIFE).isoformat()
        for row in self._database.rows("SELECT id FROM uploads WHERE started_at < ?", horizon):
            self.cancel(row["id"])

    async def _take(
        self, writer: BlobWriter, piece: ContentRange, chunks: AsyncIterator[bytes]
    ) -> None:
        """Append what is new; bytes that a retry sends again are passed over."""
        assert piece.first is not None
        if piece.first > writer.size:
            raise HttpError(
                503, f"the piece starts at {piece.first}, but {writer.size} bytes are kept"
            )
        position = piece.first
        kept_from = writer.size
        async for chunk in chunks:
            known = max(0, min(len(chunk), kept_from - position))
            position += len(chunk)
            if piece.total is not None and position > piece.total:
                raise InvalidRequest(f"more bytes came than the {piece.total} announced")
            if known < len(chunk):
                writer.write(chunk[known:])
        if piece.total is None and piece.last is not None and (position % _GRANULE):
            raise InvalidRequest(f"a piece that is not the last must be a multiple of {_GRANULE}")

    def _finish(self, upload: str, writer: BlobWriter, total: int) -> StoredObject:
        row = self._database.row("SELECT * FROM uploads WHERE id = ?", upload)
        assert row is not None
        if writer.size != total:
            raise InvalidRequest(f"{writer.size} bytes came; {total} were announced")
        del self._writers[upload]
        try:
            with self._database.transaction():
                stored = self._objects.finalize(
                    decode(row["caller"], Caller),
                    row["bucket"],
                    row["name"],
                    writer.close(),
                    json.loads(row["settings"]),
                    Preconditions(**json.loads(row["preconditions"])),
                )
                self._database.execute("DELETE FROM uploads WHERE id = ?", upload)
        except SubletError:
            self.cancel(upload)
            raise
        return stored
