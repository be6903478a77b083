"""
Blobs: the bytes of objects and of uploads under way, as files. A blob is hashed as it arrives and
becomes an object's by being moved, so that no reader ever sees half of one.
"""

import base64
import hashlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import google_crc32c

READ_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedBlob:
    """
    A whole upload: its file, and what its bytes hash to, base64 as Cloud Storage writes it. `md5`
    is empty for bytes that were put together here from several uploads.
    """

    path: Path
    size: int
    crc32c: str
    md5: str


class BlobWriter:
    """Appends to one upload's file; after a restart it hashes again what lies there already."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = google_crc32c.Checksum()
        self.size = 0
        if path.exists():
            with path.open("rb") as file:
                while chunk := file.read(READ_BYTES):
                    self._hash(chunk)
        self._file = path.open("ab", buffering=0)

    def write(self, chunk: bytes) -> None:
        """
        Raises:
            OSError: the disk is full. What was written before is hashed, so that the upload can go
                on from there.
        """
        while chunk:
            written = self._file.write(chunk)
            self._hash(chunk[:written])
            chunk = chunk[written:]

    def close(self) -> HashedBlob:
        self._file.close()
        return HashedBlob(
            path=self._path,
            size=self.size,
            crc32c=base64.b64encode(self._crc32c.digest()).decode(),
            md5=base64.b64encode(self._md5.digest()).decode(),
        )

    def abandon(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _hash(self, chunk: bytes) -> None:
        self._md5.update(chunk)
        self._crc32c.update(chunk)
        self.size += len(chunk)


class Blobs:
    def __init__(self, directory: Path) -> None:
        self._blobs = directory / "blobs"
        self._uploads = directory / "uploads"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._uploads.mkdir(parents=True, exist_ok=True)

    def writer(self, upload: str | None = None) -> BlobWriter:
        return BlobWriter(self._uploads / (upload or uuid.uuid4().hex))

    def keep(self, blob: HashedBlob) -> str:
        """Move a finished upload among the objects' blobs and return its name there."""
        name = uuid.uuid4().hex
        blob.path.rename(self.path_of(name))
        return name

    def copy(self, name: str) -> Path:
        """A second name for a blob's bytes, which never change: a copy that takes no time."""
        path = self._uploads / uuid.uuid4().hex
        os.link(self.path_of(name), path)
        return path

    def path_of(self, name: str) -> Path:
        return self._blobs / name

    def upload_path(self, upload: str) -> Path:
        return self._uploads / upload

    def remove(self, names: Iterable[str]) -> None:
        """A reader that has one open reads on to the end."""
        for name in names:
            self.path_of(name).unlink(missing_ok=True)

    def discard_orphans(self, known_blobs: frozenset[str], known_uploads: frozenset[str]) -> None:
        """Remove what a kill between moving a file and committing its row has left."""
        for directory, known in ((self._blobs, known_blobs), (self._uploads, known_uploads)):
            for entry in os.scandir(directory):
                if entry.name not in known:
                    Path(entry.path).unlink()


def concatenated(sources: list[Path], writer: BlobWriter) -> None:
    """
    Write the bytes of files one after the other. They are opened first, so that an overwrite
    meanwhile does not end the reading; it blocks, so call it on a thread.
    """
    files = [path.open("rb", buffering=0) for path in sources]
    try:
        for file in files:
            while chunk := file.read(READ_BYTES):
                writer.write(chunk)
    finally:
        for file in files:
            file.close()
