"""
Which topics, subscriptions and snapshots there are: one row each, by full name. Every read is from
the database, so a change that was rolled back was never seen.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sublet.codec import decode, encode
from sublet.errors import AlreadyExists, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.pubsub.names import ProjectName, TopicName, id_of, project_of
from sublet.local.pubsub.resources import Snapshot, Subscription, Topic

R = TypeVar("R", Topic, Subscription, Snapshot)

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pubsub_resources (
    name       TEXT PRIMARY KEY,
    collection TEXT NOT NULL,
    project    TEXT NOT NULL,
    topic      TEXT NOT NULL,
    record     TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS pubsub_resources_by_topic ON pubsub_resources (topic, collection);
"""

MAX_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """`next_token` is empty on the last page."""

    records: list[R]
    next_token: str


class Catalogue:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(SCHEMA)

    def find(self, kind: type[R], name: str) -> R | None:
        row = self._database.row(
            "SELECT record FROM pubsub_resources WHERE name = ? AND collection = ?",
            name,
            kind.collection,
        )
        return decode(row["record"], kind) if row else None

    def get(self, kind: type[R], name: str) -> R:
        """
        Raises:
            NotFound: nothing of that kind has that name.
        """
        found = self.find(kind, name)
        if found is None:
            raise NotFound(f"Resource not found (resource={id_of(name)}).")
        return found

    def create(self, record: Topic | Subscription | Snapshot) -> None:
        """
        Raises:
            AlreadyExists: the name is taken.
        """
        added = self._database.execute(
            "INSERT OR IGNORE INTO pubsub_resources VALUES (?, ?, ?, ?, ?)",
            record.name,
            record.collection,
            project_of(record.name),
            record.topic,
            encode(record).decode(),
        )
        if not added:
            raise AlreadyExists(
                f"Resource already exists in the project (resource={id_of(record.name)})."
            )

    def replace(self, record: Topic | Subscription | Snapshot) -> None:
        self._database.execute(
            "UPDATE pubsub_resources SET topic = ?, record = ? WHERE name = ?",
            record.topic,
            encode(record).decode(),
            record.name,
        )

    def delete(self, name: str) -> None:
        self._database.execute("DELETE FROM pubsub_resources WHERE name = ?", name)

    def all(self, kind: type[R]) -> list[R]:
        rows = self._database.rows(
            "SELECT record FROM pubsub_resources WHERE collection = ? ORDER BY name",
            kind.collection,
        )
        return [decode(row["record"], kind) for row in rows]

    def of_topic(self, kind: type[R], topic: TopicName) -> list[R]:
        rows = self._database.rows(
            "SELECT record FROM pubsub_resources WHERE topic = ? AND collection = ? ORDER BY name",
            topic,
            kind.collection,
        )
        return [decode(row["record"], kind) for row in rows]

    def page_of_project(
        self, kind: type[R], project: ProjectName, size: int, token: str
    ) -> Page[R]:
        rows = self._database.rows(
            "SELECT record FROM pubsub_resources "
            "WHERE project = ? AND collection = ? AND name > ? ORDER BY name LIMIT ?",
            project,
            kind.collection,
            _name_in(token),
            _checked(size) + 1,
        )
        return _page([decode(row["record"], kind) for row in rows], size)

    def page_of_topic(self, kind: type[R], topic: TopicName, size: int, token: str) -> Page[R]:
        after = _name_in(token)
        records = [record for record in self.of_topic(kind, topic) if record.name > after]
        return _page(records, _checked(size))


def _page(records: list[R], size: int) -> Page[R]:
    shown = records[: _checked(size)]
    more = len(records) > len(shown)
    return Page(shown, base64.urlsafe_b64encode(shown[-1].name.encode()).decode() if more else "")


def _checked(size: int) -> int:
    if size < 0:
        raise InvalidRequest(f"got page_size {size}; expected 0 (as many as fit) or more")
    return min(size or MAX_PAGE, MAX_PAGE)


def _name_in(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequest(f"got page_token {token!r}; expected one of this list") from None
