"""What the contract of registries cannot ask of all: answers get lost on the way to a database."""

from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from lossy_grpc import Loses, LossyProxy

from sublet.deployment import Deployment
from sublet.errors import InvalidRequest, LostRace, TryAgain
from sublet.events import TrainingRequested
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.firestore_registry import FirestoreRegistry
from sublet.gcp.identity import Identity
from sublet.memory.clock import MemoryClock
from sublet.names import AccountName, JobName
from sublet.ports import Query, create
from sublet.quarantine import Quarantine

FINAL = [
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
]


@pytest.fixture
def clock():
    return MemoryClock()


@pytest.fixture
def proxy(firestore):
    lossy = LossyProxy(firestore.address)
    yield lossy
    lossy.stop()


@pytest.fixture
def database(firestore):
    return firestore.database()


@pytest.fixture
def registry(firestore, clock, database):
    return firestore.registry(clock, database)


@pytest.fixture
def remote(firestore, clock, database, proxy):
    """The same registry, over a line that may lose things."""
    return firestore.registry(clock, database, proxy.address)


@pytest.fixture
def fact(clock):
    job = JobName.of(AccountName.of("acme"), "j1")
    return TrainingRequested(job=job, requested_at=clock.now())


def record(clock, count=1, reason="r") -> Quarantine:
    return Quarantine(
        unit="u",
        kind="a",
        count=count,
        first_at=clock.now(),
        last_at=clock.now(),
        last_reason=reason,
        last_sha256="0",
        last_size_bytes=1,
    )


def counted_on(registry, count: int) -> None:
    stored = registry.get(Quarantine, "u/a")
    registry.commit(stored.replaced_by(replace(stored.record, count=count)))


@pytest.mark.parametrize("lost", Loses)
def test_a_commit_is_done_once_whatever_is_lost_on_the_way(
    lost, remote, registry, proxy, clock, fact
):
    proxy.order("Commit", lost)
    entries = remote.commit(create(record(clock)), announcing=[fact])
    assert proxy.calls.count("Commit") == 2
    assert registry.get(Quarantine, "u/a").record.count == 1
    assert registry.outbox(committed_before=clock.now() + timedelta(days=1)) == entries


def test_a_commit_that_was_written_over_before_its_answer_came_was_done(
    remote, registry, proxy, clock
):
    proxy.order("Commit", Loses.ANSWER, then=lambda: counted_on(registry, 7))
    remote.commit(create(record(clock)))
    assert registry.get(Quarantine, "u/a").record.count == 7


def test_a_deletion_whose_answer_was_lost_was_done_even_if_the_record_is_back(
    remote, registry, proxy, clock
):
    registry.commit(create(record(clock)))
    stored = registry.get(Quarantine, "u/a")
    proxy.order("Commit", Loses.ANSWER, then=lambda: registry.commit(create(record(clock, 9))))
    remote.commit(stored.deleted())
    assert registry.get(Quarantine, "u/a").record.count == 9


def test_a_fact_that_was_published_before_its_commit_was_answered_does_not_wait_again(
    remote, registry, proxy, clock, fact
):
    late = clock.now() + timedelta(days=1)

    def publish():
        registry.mark_published(registry.outbox(committed_before=late))

    proxy.order("Commit", Loses.ANSWER, then=publish)
    remote.commit(announcing=[fact])
    assert registry.outbox(committed_before=late) == []


def test_whoever_lost_the_race_is_told_so_after_a_lost_request_too(remote, registry, proxy, clock):
    registry.commit(create(record(clock)))
    stale = registry.get(Quarantine, "u/a")
    counted_on(registry, 2)
    proxy.order("Commit", Loses.REQUEST)
    with pytest.raises(
        LostRace, match=rf"u/a is at version \d+; the write expects {stale.version}"
    ):
        remote.commit(stale.replaced_by(record(clock, 3)))
    assert registry.get(Quarantine, "u/a").record.count == 2


@pytest.mark.parametrize(
    ("method", "ask"),
    [
        ("BatchGetDocuments", lambda registry: registry.get(Quarantine, "u/a")),
        ("RunQuery", lambda registry: registry.find(Quarantine, Query())),
        ("RunAggregationQuery", lambda registry: registry.count(Quarantine, Query())),
    ],
)
def test_a_question_is_asked_again_if_its_answer_is_lost(
    method, ask, remote, registry, proxy, clock
):
    registry.commit(create(record(clock)))
    proxy.order(method, Loses.ANSWER)
    assert ask(remote) == ask(registry)
    assert proxy.calls == [method, method]


@pytest.mark.parametrize("code", FINAL, ids=lambda code: code.name)
def test_what_google_refuses_the_registry_is_not_its_callers_fault(code, remote, proxy, clock):
    """An API's client would read 403 as its own, and a handler would take it for an answer."""
    proxy.order("RunQuery", code)
    with pytest.raises(TryAgain):
        remote.find(Quarantine, Query())


def test_a_database_that_does_not_answer_is_a_passing_fault(firestore, clock, proxy):
    proxy.stop()
    endpoints = Endpoints(firestore_emulator=proxy.address)
    registry = FirestoreRegistry(
        firestore.database(),
        clock,
        Identity(endpoints),
        endpoints,
        answers_within=timedelta(seconds=0.2),
    )
    for ask in (
        lambda: registry.get(Quarantine, "u/a"),
        lambda: registry.commit(create(record(clock))),
        lambda: registry.mark_published(registry.outbox(committed_before=clock.now())),
    ):
        with pytest.raises(TryAgain):
            ask()


def test_it_is_made_without_a_call_or_a_credential():
    """A server imports it and forks; a channel from before the fork would hang after it."""
    place = "projects/p/databases/sublet"
    records = Deployment({"SUBLET_REGISTRY": f"firestore:{place}"})._records
    assert isinstance(records, FirestoreRegistry)
    assert "_client" not in vars(records)


def test_a_record_that_no_document_can_hold_is_refused(registry, clock):
    with pytest.raises(InvalidRequest, match=r"Quarantine u/a has \d+ bytes; a record has at most"):
        registry.commit(create(record(clock, reason="x" * 1_000_000)))
    registry.commit(create(record(clock, reason="x" * 999_000)))
    assert len(registry.get(Quarantine, "u/a").record.last_reason) == 999_000


def test_only_what_every_record_has_can_order_a_list(registry):
    """Firestore would leave out, without a word, each record that lacks the field."""
    with pytest.raises(ValueError, match="order_by 'count'"):
        registry.find(Quarantine, Query(order_by="count"))
