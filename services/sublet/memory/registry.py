"""
The registry in memory: what the contract suite measures the others by, and what simulations run on.
"""

import itertools
from collections.abc import Sequence
from datetime import datetime
from threading import Lock

from sublet.codec import decode, encode
from sublet.errors import LostRace
from sublet.events import Fact
from sublet.ports import Clock, OutboxEntry, Query, R, Stored, Write


class MemoryRegistry:
    """Keeps bytes, not objects, so that whatever does not survive the codec fails here too."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = Lock()
        self._versions = itertools.count(1)
        self._rows: dict[tuple[str, str], tuple[bytes, int]] = {}
        self._outbox: dict[str, OutboxEntry] = {}

    def get(self, kind: type[R], key: str) -> Stored[R] | None:
        with self._lock:
            row = self._rows.get((kind.__name__, key))
        return None if row is None else Stored(decode(row[0], kind), row[1])

    def find(self, kind: type[R], query: Query) -> list[Stored[R]]:
        return self._matching(kind, query)[: query.limit]

    def count(self, kind: type[R], query: Query) -> int:
        return len(self._matching(kind, query))

    def _matching(self, kind: type[R], query: Query) -> list[Stored[R]]:
        with self._lock:
            rows = [row for (name, _), row in self._rows.items() if name == kind.__name__]
        found = [Stored(decode(body, kind), version) for body, version in rows]
        matching = [
            (position, stored)
            for stored in found
            if query.where.items() <= stored.record.index().items()
            for position in [(stored.record.index().get(query.order_by, ""), stored.record.key)]
            if query.after is None
            or (position < query.after if query.descending else position > query.after)
        ]
        matching.sort(key=lambda pair: pair[0], reverse=query.descending)
        return [stored for _, stored in matching]

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        now = self._clock.now()
        with self._lock:
            for write in writes:
                self._check(write)
            for write in writes:
                place = (type(write.record).__name__, write.record.key)
                if write.deletes:
                    del self._rows[place]
                else:
                    self._rows[place] = (encode(write.record), next(self._versions))
            entries = [
                OutboxEntry(id=f"fact-{next(self._versions)}", fact=fact, committed_at=now)
                for fact in announcing
            ]
            self._outbox |= {entry.id: entry for entry in entries}
        return entries

    def outbox(self, *, committed_before: datetime, limit: int = 1000) -> list[OutboxEntry]:
        with self._lock:
            entries = [e for e in self._outbox.values() if e.committed_at < committed_before]
        return entries[:limit]

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None:
        with self._lock:
            for entry in entries:
                self._outbox.pop(entry.id, None)

    def _check(self, write: Write) -> None:
        kind, key = type(write.record).__name__, write.record.key
        _, version = self._rows.get((kind, key), (b"", 0))
        if version != write.expects:
            raise LostRace(
                f"{kind} {key} is at version {version}; the write expects {write.expects}"
            )
