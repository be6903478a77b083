"""
The tables of objects: live and noncurrent generations in one, soft-deleted ones in another. What
may be done is decided elsewhere; here a generation moves from one state to the next.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sublet.local.database import Database
from sublet.local.storage.stored_object import StoredObject
from sublet.ports import Clock

_COLUMNS: Final = """
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
"""
SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS objects (
    {_COLUMNS}
    PRIMARY KEY (bucket, name, generation)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS live_objects ON objects (bucket, name) WHERE deleted_at IS NULL;
CREATE TABLE IF NOT EXISTS soft_deleted_objects (
    {_COLUMNS}
    soft_deleted_at TEXT NOT NULL,
    hard_delete_at  TEXT NOT NULL,
    PRIMARY KEY (bucket, name, generation)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS generations (last INTEGER NOT NULL) STRICT;
INSERT INTO generations SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM generations);
"""  # noqa: S608  a constant
_RETENTION: Final = """(
    SELECT json_extract(settings, '$.retentionPolicy.retentionPeriod')
    FROM buckets WHERE name = bucket
) AS retention_period_s"""
_OBJECTS: Final = f"SELECT objects.*, {_RETENTION} FROM objects"  # noqa: S608  a constant
_SOFT_DELETED: Final = f"SELECT s.*, {_RETENTION} FROM soft_deleted_objects s"  # noqa: S608
_KEY: Final = "WHERE bucket = ? AND name = ? AND generation = ?"
_BATCH: Final = 500


@dataclass(slots=True)
class Cursor:
    """Where a walk over a bucket stands; whoever walks may move it forward to pass names over."""

    name: str = ""
    generation: int = 0


class ObjectRows:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(SCHEMA)

    def find(self, bucket: str, name: str, generation: int | None = None) -> StoredObject | None:
        """The live generation, or a named one that is live or noncurrent."""
        if generation is None:
            row = self._database.row(
                f"{_OBJECTS} WHERE bucket = ? AND name = ? AND deleted_at IS NULL", bucket, name
            )
        else:
            row = self._database.row(f"{_OBJECTS} {_KEY}", bucket, name, generation)
        return StoredObject.from_row(row) if row else None

    def find_soft_deleted(self, bucket: str, name: str, generation: int) -> StoredObject | None:
        row = self._database.row(
            f"{_SOFT_DELETED} {_KEY} AND hard_delete_at > ?",
            bucket,
            name,
            generation,
            self._clock.now().isoformat(),
        )
        return StoredObject.from_row(row) if row else None

    def walk(self, bucket: str, cursor: Cursor, *, state: str) -> Iterator[StoredObject]:
        """
        Objects from a position on, in the order of their names' UTF-8 bytes, then generations.

        Args:
            state: "live", "all" for noncurrent ones too, or "softDeleted".
        """
        select = _SOFT_DELETED if state == "softDeleted" else _OBJECTS
        which = {
            "live": "AND deleted_at IS NULL",
            "all": "",
            "softDeleted": f"AND hard_delete_at > '{self._clock.now().isoformat()}'",
        }[state]
        rows = None
        while rows is None or len(rows) == _BATCH:
            rows = self._database.rows(
                f"{select} WHERE bucket = ? AND (name, generation) >= (?, ?) {which} "
                f"ORDER BY name, generation LIMIT {_BATCH}",
                bucket,
                cursor.name,
                cursor.generation,
            )
            for row in rows:
                if (row["name"], row["generation"]) >= (cursor.name, cursor.generation):
                    cursor.name, cursor.generation = row["name"], row["generation"] + 1
                    yield StoredObject.from_row(row)

    def insert(self, stored: StoredObject) -> None:
        self._database.execute(
            f"INSERT INTO objects VALUES ({', '.join('?' * 12)})",  # noqa: S608  marks only
            *_values(stored),
        )

    def update(self, changed: StoredObject) -> None:
        """Write metadata over; the key stays."""
        self._database.execute(
            f"UPDATE objects SET settings = ?, metageneration = ?, updated_at = ? {_KEY}",  # noqa: S608  a constant
            json.dumps(changed.settings),
            changed.metageneration,
            changed.updated_at.isoformat(),
            *_key(changed),
        )

    def make_noncurrent(self, live: StoredObject) -> StoredObject:
        now = self._clock.now().isoformat()
        self._database.execute(
            f"UPDATE objects SET deleted_at = ? {_KEY}",  # noqa: S608  a constant
            now,
            *_key(live),
        )
        found = self.find(live.bucket, live.name, live.generation)
        assert found is not None
        return found

    def soft_delete(self, found: StoredObject, period: timedelta) -> StoredObject:
        now = self._clock.now()
        self._database.execute(
            f"INSERT INTO soft_deleted_objects VALUES ({', '.join('?' * 14)})",  # noqa: S608
            *_values(found),
            now.isoformat(),
            (now + period).isoformat(),
        )
        self.remove(found)
        gone = self.find_soft_deleted(found.bucket, found.name, found.generation)
        assert gone is not None
        return gone

    def remove(self, found: StoredObject) -> None:
        table = "soft_deleted_objects" if found.soft_deleted_at else "objects"
        self._database.execute(f"DELETE FROM {table} {_KEY}", *_key(found))  # noqa: S608

    def remove_soft_deleted(self, *, bucket: str | None = None) -> list[str]:
        """
        Forget what is soft-deleted: all of one bucket, or all whose time is over.

        Returns:
            The blobs that nobody needs any more.
        """
        where, value = "hard_delete_at <= ?", self._clock.now().isoformat()
        if bucket is not None:
            where, value = "bucket = ?", bucket
        rows = self._database.rows(
            f"DELETE FROM soft_deleted_objects WHERE {where} RETURNING blob",  # noqa: S608
            value,
        )
        return [row["blob"] for row in rows]

    def blobs(self) -> frozenset[str]:
        """The blobs that some generation of some object needs."""
        rows = self._database.rows(
            "SELECT blob FROM objects UNION ALL SELECT blob FROM soft_deleted_objects"
        )
        return frozenset(row["blob"] for row in rows)

    def next_generation(self) -> int:
        """
        Microseconds, as Cloud Storage's look; never twice, and never back, whatever the clock does.
        """
        now = int(self._clock.now().timestamp() * 1_000_000)
        row = self._database.row(
            "UPDATE generations SET last = max(last + 1, ?) RETURNING last", now
        )
        assert row is not None
        return int(row["last"])


def _key(found: StoredObject) -> tuple[str, str, int]:
    return found.bucket, found.name, found.generation


def _values(stored: StoredObject) -> tuple[object, ...]:
    return (
        *_key(stored),
        stored.metageneration,
        stored.size,
        stored.crc32c,
        stored.md5,
        stored.blob,
        json.dumps(stored.settings),
        stored.created_at.isoformat(),
        stored.updated_at.isoformat(),
        stored.deleted_at.isoformat() if stored.deleted_at else None,
    )
