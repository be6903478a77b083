"""The local cloud's state: one SQLite file, one connection, one thread (the event loop's)."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Database:
    """
    Rows come back as mappings by column name. Each component creates its own tables.

    A commit survives the process being killed at any moment; it does not wait for the disk, so a
    power cut may lose the last commits, never corrupt the file.
    """

    def __init__(self, path: Path | str) -> None:
        if isinstance(path, Path):
            path.touch(mode=0o600)  # it holds the signing keys of the accounts of this cloud
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        self._depth = 0
        self._after_commit: list[Callable[[], None]] = []
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")

    def create_tables(self, schema: str) -> None:
        self._connection.executescript(schema)

    def execute(self, sql: str, *parameters: Any) -> int:  # noqa: ANN401  whatever SQLite stores
        """Run one statement and return how many rows it changed."""
        return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self._connection.executemany(sql, rows)

    def row(self, sql: str, *parameters: Any) -> sqlite3.Row | None:  # noqa: ANN401
        found: sqlite3.Row | None = self._connection.execute(sql, parameters).fetchone()
        return found

    def rows(self, sql: str, *parameters: Any) -> list[sqlite3.Row]:  # noqa: ANN401
        return self._connection.execute(sql, parameters).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """
        All or nothing. One within another joins it: an object and its notification commit together.
        """
        if self._depth == 0:
            self._connection.execute("BEGIN IMMEDIATE")
        self._depth += 1
        try:
            yield
        except BaseException:
            self._depth -= 1
            if self._depth == 0:
                self._after_commit.clear()
                self._connection.execute("ROLLBACK")
            raise
        self._depth -= 1
        if self._depth == 0:
            self._connection.execute("COMMIT")
            self._run_callbacks()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back when the open transaction has committed, not at all if it rolls back."""
        self._after_commit.append(callback)
        if self._depth == 0:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        callbacks, self._after_commit = self._after_commit, []
        for callback in callbacks:
            callback()

    def close(self) -> None:
        self._connection.close()
