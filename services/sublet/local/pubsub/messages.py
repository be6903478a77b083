"""
The rows behind delivery: messages, and who still holds them. A holder is a subscription or a
snapshot (which is a backlog that nobody consumes). A message without holders is deleted, unless its
topic retains it.

Nothing here opens a transaction: the caller does, one for each request.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from sublet.errors import InvalidRequest
from sublet.local.database import Database
from sublet.local.pubsub.filters import Filter
from sublet.local.pubsub.names import DELETED_TOPIC, TopicName
from sublet.local.pubsub.resources import Subscription

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pubsub_messages (
    id           INTEGER PRIMARY KEY,
    topic        TEXT NOT NULL,
    data         BLOB NOT NULL,
    attributes   TEXT NOT NULL,
    ordering_key TEXT NOT NULL,
    size_bytes   INTEGER NOT NULL,
    published_at INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS pubsub_messages_by_time ON pubsub_messages (topic, published_at);

CREATE TABLE IF NOT EXISTS pubsub_backlogs (
    holder       TEXT NOT NULL,
    message      INTEGER NOT NULL,
    acked        INTEGER NOT NULL,
    failures     INTEGER NOT NULL,
    available_at INTEGER NOT NULL,
    PRIMARY KEY (holder, message)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pubsub_backlogs_by_message ON pubsub_backlogs (message);

CREATE TABLE IF NOT EXISTS pubsub_counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
"""

MAX_ATTRIBUTES: Final = 100
MAX_KEY_BYTES: Final = 256
MAX_VALUE_BYTES: Final = 1024
FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message that is to be published."""

    data: bytes = b""
    attributes: Mapping[str, str] = field(default_factory=dict)
    ordering_key: str = ""

    @property
    def size_bytes(self) -> int:
        attributes = sum(len(k.encode()) + len(v.encode()) for k, v in self.attributes.items())
        return len(self.data) + attributes + len(self.ordering_key.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message that was published."""

    id: int
    data: bytes
    attributes: dict[str, str]
    ordering_key: str
    published_at: datetime


@dataclass(slots=True, kw_only=True, eq=False)
class Pending:
    """
    A message that one subscription has not acknowledged: all that is kept of it in memory.

    `ack_id` is of its latest lease; it is empty if there is none, or none that has a say any more.
    `deadline` is set while that lease runs.
    """

    id: int
    ordering_key: str
    size_bytes: int
    published_at: datetime
    failures: int
    available_at: datetime
    ack_id: str = ""
    deadline: datetime | None = None
    settled: bool = False


class Messages:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def count_up(self, counter: str, by: int = 1) -> int:
        """Raise a counter that never goes back, and return its new value."""
        row = self._database.row(
            "INSERT INTO pubsub_counters VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value RETURNING value",
            counter,
            by,
        )
        assert row is not None
        return int(row["value"])

    def add(self, topic: TopicName, outgoing: Sequence[Outgoing], now: datetime) -> list[int]:
        """Keep messages under new ids, ascending in the order given."""
        last = self.count_up("message", len(outgoing))
        ids = list(range(last - len(outgoing) + 1, last + 1))
        published_at = _to_micros(now)
        self._database.execute_many(
            "INSERT INTO pubsub_messages VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    message_id,
                    topic,
                    message.data,
                    json.dumps(dict(message.attributes)),
                    message.ordering_key,
                    message.size_bytes,
                    published_at,
                )
                for message_id, message in zip(ids, outgoing, strict=True)
            ],
        )
        return ids

    def read(self, ids: Iterable[int]) -> dict[int, Message]:
        """Those of the messages that are still there."""
        rows = self._database.rows(
            "SELECT * FROM pubsub_messages WHERE id IN (SELECT value FROM json_each(?))",
            json.dumps(list(ids)),
        )
        return {
            row["id"]: Message(
                id=row["id"],
                data=row["data"],
                attributes=json.loads(row["attributes"]),
                ordering_key=row["ordering_key"],
                published_at=_from_micros(row["published_at"]),
            )
            for row in rows
        }

    # --- holding ----------------------------------------------------------------------------------

    def hold(self, holder: str, ids: Iterable[int]) -> None:
        """Put messages into a backlog, unacknowledged, as if never delivered."""
        self._database.execute_many(
            "INSERT OR REPLACE INTO pubsub_backlogs VALUES (?, ?, 0, 0, 0)",
            [(holder, message_id) for message_id in ids],
        )

    def backlog(self, holder: str, *, after: int, limit: int) -> list[Pending]:
        """What is not acknowledged, by id, from the first one above `after`."""
        rows = self._database.rows(
            "SELECT id, ordering_key, size_bytes, published_at, failures, available_at "
            "FROM pubsub_backlogs JOIN pubsub_messages ON id = message "
            "WHERE holder = ? AND message > ? AND NOT acked ORDER BY message LIMIT ?",
            holder,
            after,
            limit,
        )
        return [
            Pending(
                id=row["id"],
                ordering_key=row["ordering_key"],
                size_bytes=row["size_bytes"],
                published_at=_from_micros(row["published_at"]),
                failures=row["failures"],
                available_at=_from_micros(row["available_at"]),
            )
            for row in rows
        ]

    def unacknowledged(self, holder: str) -> list[int]:
        rows = self._database.rows(
            "SELECT message FROM pubsub_backlogs WHERE holder = ? AND NOT acked ORDER BY message",
            holder,
        )
        return [row["message"] for row in rows]

    def oldest(self, holder: str) -> datetime | None:
        """When the oldest message that is not acknowledged was published."""
        row = self._database.row(
            "SELECT MIN(published_at) AS oldest FROM pubsub_backlogs "
            "JOIN pubsub_messages ON id = message WHERE holder = ? AND NOT acked",
            holder,
        )
        return _from_micros(row["oldest"]) if row and row["oldest"] is not None else None

    def acknowledge(self, holder: str, ids: Sequence[int], *, retain: bool) -> None:
        rows = [(holder, message_id) for message_id in ids]
        if retain:
            self._database.execute_many(
                "UPDATE pubsub_backlogs SET acked = 1 WHERE holder = ? AND message = ?", rows
            )
        else:
            self._database.execute_many(
                "DELETE FROM pubsub_backlogs WHERE holder = ? AND message = ?", rows
            )

    def record_failures(
        self, holder: str, failures: Iterable[tuple[Pending, int, datetime]]
    ) -> None:
        """Keep how often each message has failed, and when it may be delivered again."""
        self._database.execute_many(
            "UPDATE pubsub_backlogs SET failures = ?, available_at = ? "
            "WHERE holder = ? AND message = ?",
            [(count, _to_micros(at), holder, pending.id) for pending, count, at in failures],
        )

    def postpone(self, holder: str, until: Mapping[int, datetime]) -> None:
        """Let messages that were just put into a backlog be delivered from an instant on."""
        self._database.execute_many(
            "UPDATE pubsub_backlogs SET available_at = ? WHERE holder = ? AND message = ?",
            [(_to_micros(at), holder, message_id) for message_id, at in until.items()],
        )

    # --- seeking ----------------------------------------------------------------------------------

    def acknowledge_before(self, subscription: Subscription, time: datetime) -> None:
        """Acknowledge what was published before an instant."""
        change = (
            "UPDATE pubsub_backlogs SET acked = 1"
            if subscription.retain_acked_messages
            else "DELETE FROM pubsub_backlogs"
        )
        self._database.execute(
            f"{change} WHERE holder = ? AND message IN "  # noqa: S608  one of two constants
            "(SELECT id FROM pubsub_messages WHERE topic = ? AND published_at < ?)",
            subscription.name,
            subscription.topic,
            _to_micros(time),
        )

    def revive_since(self, subscription: Subscription, time: datetime) -> None:
        """Take back every acknowledgement of what was published at or after an instant."""
        self._database.execute(
            "UPDATE pubsub_backlogs SET acked = 0, failures = 0, available_at = 0 "
            "WHERE holder = ? AND acked AND message IN "
            "(SELECT id FROM pubsub_messages WHERE topic = ? AND published_at >= ?)",
            subscription.name,
            subscription.topic,
            _to_micros(time),
        )

    def not_held_since(self, subscription: Subscription, time: datetime) -> list[int]:
        """What its topic still has from an instant on, and the subscription does not hold."""
        rows = self._database.rows(
            "SELECT id FROM pubsub_messages WHERE topic = ? AND published_at >= ? AND NOT EXISTS "
            "(SELECT 1 FROM pubsub_backlogs WHERE holder = ? AND message = id)",
            subscription.topic,
            _to_micros(time),
            subscription.name,
        )
        return [row["id"] for row in rows]

    def matching(self, ids: Iterable[int], lets_pass: Filter) -> list[int]:
        rows = self._database.rows(
            "SELECT id, attributes FROM pubsub_messages "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            json.dumps(list(ids)),
        )
        return [row["id"] for row in rows if lets_pass.matches(json.loads(row["attributes"]))]

    # --- letting go -------------------------------------------------------------------------------

    def release(self, holder: str) -> None:
        self._database.execute("DELETE FROM pubsub_backlogs WHERE holder = ?", holder)

    def release_older(self, subscription: Subscription, horizon: datetime) -> int:
        """
        Drop from a backlog what was published at an instant or before, acknowledged or not, and
        say how many that were.
        """
        return self._database.execute(
            "DELETE FROM pubsub_backlogs WHERE holder = ? AND message IN "
            "(SELECT id FROM pubsub_messages WHERE topic = ? AND published_at <= ?)",
            subscription.name,
            subscription.topic,
            _to_micros(horizon),
        )

    def delete_unheld(self, ids: Iterable[int]) -> None:
        self._database.execute_many(
            "DELETE FROM pubsub_messages WHERE id = ? "
            "AND NOT EXISTS (SELECT 1 FROM pubsub_backlogs WHERE message = id)",
            [(message_id,) for message_id in ids],
        )

    def delete_all_unheld(self, topic: TopicName, horizon: datetime = FOREVER) -> None:
        """Delete the topic's messages up to an instant, but for those that somebody holds."""
        self._database.execute(
            "DELETE FROM pubsub_messages WHERE topic = ? AND published_at <= ? "
            "AND NOT EXISTS (SELECT 1 FROM pubsub_backlogs WHERE message = id)",
            topic,
            _to_micros(horizon),
        )

    def orphan(self, topic: TopicName) -> None:
        """A topic is gone; a later one of its name does not inherit its messages."""
        self._database.execute(
            "UPDATE pubsub_messages SET topic = ? WHERE topic = ?", DELETED_TOPIC, topic
        )
        self.delete_all_unheld(DELETED_TOPIC)


def verify_outgoing(messages: Sequence[Outgoing]) -> None:
    """
    Raises:
        InvalidRequest: nothing to publish, an empty message, or an attribute out of bounds.
    """
    if not 1 <= len(messages) <= 1000:
        raise InvalidRequest(f"got {len(messages)} messages to publish; expected 1 to 1000")
    for message in messages:
        if not message.data and not message.attributes:
            raise InvalidRequest("Some messages in the request are empty: no data, no attributes")
        if len(message.attributes) > MAX_ATTRIBUTES:
            raise InvalidRequest(f"got {len(message.attributes)} attributes; expected at most 100")
        if len(message.ordering_key.encode()) > MAX_VALUE_BYTES:
            raise InvalidRequest("an ordering key is longer than 1024 bytes")
        for key, value in message.attributes.items():
            if not 1 <= len(key.encode()) <= MAX_KEY_BYTES or key.startswith("goog"):
                raise InvalidRequest(
                    f"got attribute key {key[:64]!r}; expected 1-256 bytes, not led by 'goog'"
                )
            if len(value.encode()) > MAX_VALUE_BYTES:
                raise InvalidRequest(f"the value of attribute {key!r} is longer than 1024 bytes")


def _to_micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _from_micros(micros: int) -> datetime:
    return _EPOCH + micros * _MICROSECOND
