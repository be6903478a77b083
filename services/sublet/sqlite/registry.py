"""
The registry in one SQLite file. Many processes and threads may share it; a commit is one
transaction, and survives the process being killed at any moment. It does not leave the machine: in
the cloud it is Firestore.
"""

import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sublet.codec import decode, decode_fact, encode
from sublet.errors import LostRace, TryAgain
from sublet.events import Fact
from sublet.ports import Clock, OutboxEntry, Query, R, Stored, Write

_BUSY_TIMEOUT_S: Final = 10.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (
    kind    TEXT NOT NULL,
    key     TEXT NOT NULL,
    version INTEGER NOT NULL,
    fields  TEXT NOT NULL,
    body    TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
DROP INDEX IF EXISTS records_by_account;
CREATE INDEX IF NOT EXISTS records_of_account ON records
    (kind, json_extract(fields, '$.account'), json_extract(fields, '$.created_at'), key, fields);
CREATE INDEX IF NOT EXISTS records_by_state
    ON records (kind, json_extract(fields, '$.state'), json_extract(fields, '$.created_at'), key);
CREATE TABLE IF NOT EXISTS versions (last INTEGER NOT NULL) STRICT;
INSERT INTO versions SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM versions);
CREATE TABLE IF NOT EXISTS outbox (
    sequence     INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    data         TEXT NOT NULL,
    committed_at TEXT NOT NULL
) STRICT;
"""


class SqliteRegistry:
    """
    Raises:
        TryAgain: from any method, when another process has held the file for 10 s.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._local = threading.local()
        with self._connection() as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(_SCHEMA)

    def get(self, kind: type[R], key: str) -> Stored[R] | None:
        with self._connection() as connection:
            row = connection.execute(
                "SELECT body, version FROM records WHERE kind = ? AND key = ?", (kind.__name__, key)
            ).fetchone()
        return None if row is None else Stored(decode(row[0], kind), row[1])

    def find(self, kind: type[R], query: Query) -> list[Stored[R]]:
        condition, parameters = _condition(kind, query)
        order, direction = _order(query), "DESC" if query.descending else "ASC"
        # Found in the index alone, which holds all fields; only what is shown is read whole.
        sql = (
            f"SELECT body, version FROM (SELECT key AS found, {order} AS place FROM records "  # noqa: S608  fields are checked
            f"WHERE {condition} "
            f"ORDER BY place {direction}, key {direction} LIMIT {int(query.limit)}) "
            f"JOIN records ON kind = ? AND key = found ORDER BY place {direction}, key {direction}"
        )
        with self._connection() as connection:
            rows = connection.execute(sql, (*parameters, kind.__name__)).fetchall()
        return [Stored(decode(body, kind), version) for body, version in rows]

    def count(self, kind: type[R], query: Query) -> int:
        condition, parameters = _condition(kind, query)
        sql = f"SELECT count(*) FROM records WHERE {condition}"  # noqa: S608  fields are checked
        with self._connection() as connection:
            (count,) = connection.execute(sql, parameters).fetchone()
        return int(count)

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        now = self._clock.now()
        entries = [
            OutboxEntry(id=uuid.uuid4().hex, fact=fact, committed_at=now) for fact in announcing
        ]
        with self._connection() as connection, _transaction(connection):
            for write in writes:
                _apply(connection, write)
            connection.executemany(
                "INSERT INTO outbox (id, type, data, committed_at) VALUES (?, ?, ?, ?)",
                [
                    (entry.id, entry.fact.type, encode(entry.fact).decode(), _sortable(now))
                    for entry in entries
                ],
            )
        return entries

    def outbox(self, *, committed_before: datetime, limit: int = 1000) -> list[OutboxEntry]:
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT id, type, data, committed_at FROM outbox WHERE committed_at < ? "
                "ORDER BY sequence LIMIT ?",
                (_sortable(committed_before), limit),
            ).fetchall()
        return [
            OutboxEntry(
                id=row[0],
                fact=decode_fact(row[1], row[2].encode()),
                committed_at=datetime.fromisoformat(row[3]),
            )
            for row in rows
        ]

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None:
        with self._connection() as connection, _transaction(connection):
            connection.executemany(
                "DELETE FROM outbox WHERE id = ?", [(entry.id,) for entry in entries]
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The thread's own connection; a file that stays locked is a passing fault, not a bug."""
        if not hasattr(self._local, "connection"):
            self._local.connection = sqlite3.connect(
                self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None
            )
            self._local.connection.execute("PRAGMA synchronous=NORMAL")
        try:
            yield self._local.connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise TryAgain(f"the registry is busy: {error}") from error
            raise


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _apply(connection: sqlite3.Connection, write: Write) -> None:
    kind, key = type(write.record).__name__, write.record.key
    row = connection.execute(
        "SELECT version FROM records WHERE kind = ? AND key = ?", (kind, key)
    ).fetchone()
    version = row[0] if row else 0
    if version != write.expects:
        raise LostRace(f"{kind} {key} is at version {version}; the write expects {write.expects}")
    if write.deletes:
        connection.execute("DELETE FROM records WHERE kind = ? AND key = ?", (kind, key))
        return
    (new_version,) = connection.execute(
        "UPDATE versions SET last = last + 1 RETURNING last"
    ).fetchone()
    fields = json.dumps(dict(write.record.index()))
    connection.execute(
        "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?)",
        (kind, key, new_version, fields, encode(write.record).decode()),
    )


def _condition(kind: type[R], query: Query) -> tuple[str, list[str]]:
    """What a query asks of a record, but for how many, as SQL and its parameters."""
    conditions, parameters = ["kind = ?"], [kind.__name__]
    for field, value in query.where.items():
        conditions.append(f"{_field(field)} = ?")
        parameters.append(value)
    if query.after is not None:
        order, beyond = _order(query), "<" if query.descending else ">"
        # The first term says nothing new; the index can seek by it, and not by a pair.
        conditions.append(f"{order} {beyond}= ? AND ({order}, key) {beyond} (?, ?)")
        parameters += (query.after[0], *query.after)
    return " AND ".join(conditions), parameters


def _order(query: Query) -> str:
    field = _field(query.order_by)
    return field if query.order_by == "created_at" else f"coalesce({field}, '')"


def _field(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"got index field {name!r}; expected an identifier")
    return f"json_extract(fields, '$.{name}')"


def _sortable(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")
