"""
The registry in Firestore. A commit is one call, whose preconditions are the versions that its
writes expect: no transaction is open between a read and a write, so nobody waits for a lock that a
dead process holds. A call whose answer is lost is made again, and finds its own marker if the first
one got through.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final, TypeVar

import google.auth.exceptions
import grpc
from google.api_core import exceptions as google_errors
from google.api_core.retry import Retry, if_exception_type
from google.cloud.firestore_v1 import types
from google.cloud.firestore_v1.services.firestore import FirestoreClient
from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

from sublet.errors import LostRace, TryAgain
from sublet.events import Fact
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.firestore_documents import (
    OUTBOX,
    Document,
    Names,
    commit_write,
    fact_write,
    outbox_entry,
    record_write,
    stored,
    version_of,
)
from sublet.gcp.firestore_queries import structured_query
from sublet.gcp.identity import Identity
from sublet.ports import Clock, OutboxEntry, Query, R, Stored, Write

T = TypeVar("T")
_Structured = types.StructuredQuery

_CALL_WITHIN_S: Final = 5.0
_ANSWERS_WITHIN: Final = timedelta(seconds=15)


class _MayPass(Exception):
    """Raised when a precondition failed, and what it asks for is so a moment later."""


_RETRIED: Final = Retry(
    predicate=if_exception_type(
        _MayPass,
        google_errors.Aborted,
        google_errors.DeadlineExceeded,
        google_errors.InternalServerError,
        google_errors.ResourceExhausted,
        google_errors.ServiceUnavailable,
        google_errors.Unknown,
    ),
    initial=0.05,
    maximum=2.0,
)
_PRECONDITION_FAILED: Final = (
    google_errors.AlreadyExists,
    google_errors.FailedPrecondition,
    google_errors.NotFound,
)


class FirestoreRegistry:
    """
    Args:
        database: `projects/PROJECT/databases/DATABASE`.
        answers_within: all tries of a call together.

    Raises:
        TryAgain: from any method, when Firestore gives no answer in time, or will not have us; that
            is never the caller's fault.
    """

    def __init__(
        self,
        database: str,
        clock: Clock,
        identity: Identity,
        endpoints: Endpoints,
        *,
        answers_within: timedelta = _ANSWERS_WITHIN,
    ) -> None:
        self._names = Names(database)
        self._clock = clock
        self._identity = identity
        self._endpoints = endpoints
        self._retried = _RETRIED.with_timeout(answers_within.total_seconds())
        self._metadata = [("google-cloud-resource-prefix", database)]
        if endpoints.firestore_emulator:
            self._metadata.append(("authorization", "Bearer owner"))  # past its security rules

    def get(self, kind: type[R], key: str) -> Stored[R] | None:
        name = self._names.record(kind, key)
        found = self._documents([name])
        return stored(found[name], kind) if name in found else None

    def find(self, kind: type[R], query: Query) -> list[Stored[R]]:
        structured = structured_query(self._names, kind, query, limit=query.limit)
        return [stored(row, kind) for row in self._found(self._names.kind(kind), structured)]

    def count(self, kind: type[R], query: Query) -> int:
        total = types.StructuredAggregationQuery(
            structured_query=structured_query(self._names, kind, query),
            aggregations=[types.StructuredAggregationQuery.Aggregation(alias="total", count={})],
        )
        request = types.RunAggregationQueryRequest(
            parent=self._names.kind(kind), structured_aggregation_query=total
        )

        def count() -> int:
            (answer,) = self._client.run_aggregation_query(
                request, timeout=_CALL_WITHIN_S, retry=None, metadata=self._metadata
            )
            return int(answer.result.aggregate_fields["total"].integer_value)

        return self._answer(count, f"count {kind.__name__}")

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        now, commit_id = self._clock.now(), secrets.token_hex(16)
        entries = [
            OutboxEntry(id=f"{commit_id}-{number:04d}", fact=fact, committed_at=now)
            for number, fact in enumerate(announcing)
        ]
        if not writes and not entries:
            return []
        batch = [
            *(record_write(self._names, write, commit_id) for write in writes),
            *(fact_write(self._names, entry) for entry in entries),
            commit_write(self._names, commit_id, now),
        ]

        def commit() -> None:
            try:
                self._write(batch)
            except _PRECONDITION_FAILED as error:
                self._look_again(writes, commit_id, error)

        self._answer(commit, "commit")
        return entries

    def outbox(self, *, committed_before: datetime, limit: int = 1000) -> list[OutboxEntry]:
        committed_at = _Structured.FieldReference(field_path="committed_at")
        older = _Structured.FieldFilter(
            field=committed_at,
            op=_Structured.FieldFilter.Operator.LESS_THAN,
            value=types.Value(timestamp_value=committed_before),
        )
        structured = _Structured(
            from_=[_Structured.CollectionSelector(collection_id=OUTBOX)],
            where=_Structured.Filter(field_filter=older),
            order_by=[_Structured.Order(field=committed_at)],
            limit=limit,
        )
        return [outbox_entry(row) for row in self._found(self._names.root, structured)]

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None:
        batch = [types.Write(delete=self._names.fact(entry.id)) for entry in entries]
        if batch:
            self._answer(lambda: self._write(batch), "forget facts")

    # --- calls ------------------------------------------------------------------------------------

    def _look_again(self, writes: Sequence[Write], commit_id: str, error: Exception) -> None:
        """
        Whether an earlier try was done after all, or who lost the race.

        Raises:
            LostRace: a write did not find the version it expects.
        """
        marker = self._names.commit(commit_id)
        found = self._documents([marker, *map(self._names.written, writes)])
        if marker in found:
            return
        for write in writes:
            document = found.get(self._names.written(write))
            version = version_of(document) if document else 0
            if version != write.expects:
                raise LostRace(
                    f"{type(write.record).__name__} {write.record.key} is at version {version}; "
                    f"the write expects {write.expects}"
                )
        raise _MayPass(str(error))

    def _write(self, batch: Sequence[types.Write]) -> None:
        self._client.commit(
            types.CommitRequest(database=self._names.database, writes=batch),
            timeout=_CALL_WITHIN_S,
            retry=None,
            metadata=self._metadata,
        )

    def _documents(self, names: Sequence[str]) -> dict[str, Document]:
        """Those that are there, by name."""
        request = types.BatchGetDocumentsRequest(database=self._names.database, documents=names)

        def read() -> dict[str, Document]:
            answers = self._client.batch_get_documents(
                request, timeout=_CALL_WITHIN_S, retry=None, metadata=self._metadata
            )
            pairs = (types.BatchGetDocumentsResponse.pb(answer) for answer in answers)
            return {pb.found.name: pb.found for pb in pairs if pb.HasField("found")}

        return self._answer(read, "read")

    def _found(self, parent: str, query: types.StructuredQuery) -> list[Document]:
        request = types.RunQueryRequest(parent=parent, structured_query=query)

        def run() -> list[Document]:
            answers = self._client.run_query(
                request, timeout=_CALL_WITHIN_S, retry=None, metadata=self._metadata
            )
            rows = (types.RunQueryResponse.pb(answer) for answer in answers)
            return [pb.document for pb in rows if pb.HasField("document")]

        return self._answer(run, "answer a query")

    def _answer(self, call: Callable[[], T], what: str) -> T:
        """The call's result, tried again while that may help."""
        with _translated(what):
            return self._retried(call)()

    @cached_property
    def _client(self) -> FirestoreClient:
        """Made at the first call: a server that forks must not have a channel before it does."""
        host = self._endpoints.firestore_emulator
        if not host:
            return FirestoreClient(credentials=self._identity.credentials)
        return FirestoreClient(
            transport=FirestoreGrpcTransport(channel=grpc.insecure_channel(host))
        )


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except google_errors.GoogleAPIError as error:
        raise TryAgain(f"the registry did not {what}: {error}") from error
    except google.auth.exceptions.GoogleAuthError as error:  # whose text has held tokens
        raise TryAgain(f"the registry did not {what}: {type(error).__name__}") from error
