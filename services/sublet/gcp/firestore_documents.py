"""
How a record is a Firestore document: which name it has, what of it can be queried, and what its
version is.

    kinds/KIND/records/=KEY    index: what queries see, record: JSON, commit: who wrote it
    outbox/COMMIT-NUMBER       a fact, its type and when it was committed
    commits/COMMIT             that a commit was made; nothing reads it after a day

Firestore leaves a document as it was, update time included, if a write changes nothing in it. Each
commit therefore leaves its own id in whatever it writes, and so the update time is a version that
never comes back.
"""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from google.cloud.firestore_v1 import types
from google.protobuf.timestamp_pb2 import Timestamp

from sublet.codec import decode, decode_fact, encode
from sublet.errors import InvalidRequest
from sublet.ports import OutboxEntry, R, Record, Stored, Write

ORDERS: Final = ("created_at", "name", "attention")
"""What lists are ordered by. Firestore leaves out what lacks the field; no record does."""
RECORDS: Final = "records"
OUTBOX: Final = "outbox"
COMMITS: Final = "commits"
_COMMITS_KEPT_FOR: Final = timedelta(days=1)
_MAX_RECORD_BYTES: Final = 1_000_000
"""Of the 1 MiB of a document; the rest is for its name and its index."""

Document = Any
"""The protobuf message itself, which is read much faster than its proto-plus wrapper."""


class Names:
    """The documents of one database: `projects/PROJECT/databases/DATABASE`."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.root = f"{database}/documents"

    def kind(self, kind: type[Record]) -> str:
        return f"{self.root}/kinds/{kind.__name__}"

    def record(self, kind: type[Record], key: str) -> str:
        return f"{self.kind(kind)}/{RECORDS}/{document_id(key)}"

    def written(self, write: Write) -> str:
        return self.record(type(write.record), write.record.key)

    def fact(self, entry_id: str) -> str:
        return f"{self.root}/{OUTBOX}/{entry_id}"

    def commit(self, commit_id: str) -> str:
        return f"{self.root}/{COMMITS}/{commit_id}"


def document_id(key: str) -> str:
    """
    An id that sorts as the key does. Ids hold no slash, and are not `.`, `..` or `__x__`.

    Source: https://cloud.google.com/firestore/quotas#collections_documents_and_fields
    """
    return "=" + key.replace(".", "..").replace("/", ".~")


def record_write(names: Names, write: Write, commit_id: str) -> types.Write:
    """
    Raises:
        InvalidRequest: the record is larger than a document may be.
    """
    name = names.written(write)
    expected = (
        types.Precondition(update_time=time_of(write.expects))
        if write.expects
        else types.Precondition(exists=False)
    )
    if write.deletes:
        return types.Write(delete=name, current_document=expected)
    body = encode(write.record)
    if len(body) > _MAX_RECORD_BYTES:
        raise InvalidRequest(
            f"{type(write.record).__name__} {write.record.key} has {len(body)} bytes; "
            f"a record has at most {_MAX_RECORD_BYTES}"
        )
    index = dict.fromkeys(ORDERS, "") | dict(write.record.index())
    fields = {
        "index": types.Value(map_value={"fields": {k: text(v) for k, v in index.items()}}),
        "record": text(body.decode()),
        "commit": text(commit_id),
    }
    return types.Write(update={"name": name, "fields": fields}, current_document=expected)


def fact_write(names: Names, entry: OutboxEntry) -> types.Write:
    fields = {
        "committed_at": types.Value(timestamp_value=entry.committed_at),
        "type": text(entry.fact.type),
        "data": text(encode(entry.fact).decode()),
    }
    return types.Write(update={"name": names.fact(entry.id), "fields": fields})


def commit_write(names: Names, commit_id: str, now: datetime) -> types.Write:
    """That the commit was made: what a second try finds if the first one's answer was lost."""
    fields = {"expires_at": types.Value(timestamp_value=now + _COMMITS_KEPT_FOR)}
    return types.Write(
        update={"name": names.commit(commit_id), "fields": fields},
        current_document=types.Precondition(exists=False),
    )


def stored(document: Document, kind: type[R]) -> Stored[R]:
    return Stored(decode(document.fields["record"].string_value, kind), version_of(document))


def outbox_entry(document: Document) -> OutboxEntry:
    fields = document.fields
    return OutboxEntry(
        id=document.name.rpartition("/")[2],
        fact=decode_fact(fields["type"].string_value, fields["data"].string_value.encode()),
        committed_at=fields["committed_at"].timestamp_value.ToDatetime(tzinfo=UTC),
    )


def version_of(document: Document) -> int:
    """Microseconds since 1970: the time of the commit, which for one document only grows."""
    version: int = document.update_time.ToMicroseconds()
    return version


def time_of(version: int) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(version)
    return time


def text(value: str) -> types.Value:
    return types.Value(string_value=str.__str__(value))
