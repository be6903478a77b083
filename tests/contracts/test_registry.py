"""
One promise, several registries: documents with versions, all-or-nothing commits, facts that are
kept.
"""

import itertools
import multiprocessing
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.accounts import ApiKey, Role
from sublet.errors import LostRace
from sublet.events import TrainingRequested
from sublet.memory.clock import MemoryClock
from sublet.memory.registry import MemoryRegistry
from sublet.names import AccountName, JobName
from sublet.ports import Query, create
from sublet.quarantine import Quarantine
from sublet.sqlite.registry import SqliteRegistry

ACME = AccountName.of("acme")


@pytest.fixture
def clock():
    return MemoryClock()


@pytest.fixture(params=["memory", "sqlite"])
def registry(request, clock, tmp_path):
    if request.param == "memory":
        return MemoryRegistry(clock)
    return SqliteRegistry(tmp_path / "registry.db", clock)


def record(clock, name="a", count=1, unit="u") -> Quarantine:
    return Quarantine(
        unit=unit,
        kind=name,
        count=count,
        first_at=clock.now(),
        last_at=clock.now(),
        last_reason="r",
        last_sha256="0",
        last_size_bytes=1,
    )


def fact(clock, number=1) -> TrainingRequested:
    return TrainingRequested(job=JobName.of(ACME, f"j{number}"), requested_at=clock.now())


def test_what_was_committed_is_found_again_equal(registry, clock):
    registry.commit(create(record(clock)))
    assert registry.get(Quarantine, "u/a").record == record(clock)


def test_what_was_never_committed_is_not_there(registry):
    assert registry.get(Quarantine, "u/a") is None


def test_create_if_absent_has_one_winner(registry, clock):
    registry.commit(create(record(clock, count=1)))
    with pytest.raises(LostRace):
        registry.commit(create(record(clock, count=2)))
    assert registry.get(Quarantine, "u/a").record.count == 1


def test_a_write_to_a_version_that_is_gone_is_lost(registry, clock):
    registry.commit(create(record(clock)))
    stale = registry.get(Quarantine, "u/a")
    registry.commit(stale.replaced_by(record(clock, count=2)))
    with pytest.raises(LostRace):
        registry.commit(stale.replaced_by(record(clock, count=3)))
    with pytest.raises(LostRace):
        registry.commit(stale.deleted())
    assert registry.get(Quarantine, "u/a").record.count == 2


def test_a_record_made_again_after_its_deletion_is_not_the_old_one(registry, clock):
    """Versions never come back, or a writer that slept through both would overwrite the new one."""
    registry.commit(create(record(clock)))
    stale = registry.get(Quarantine, "u/a")
    registry.commit(stale.deleted())
    registry.commit(create(record(clock, count=2)))
    with pytest.raises(LostRace):
        registry.commit(stale.replaced_by(record(clock, count=3)))


def test_a_commit_is_all_or_nothing_with_its_facts(registry, clock):
    registry.commit(create(record(clock, "a")))
    with pytest.raises(LostRace):
        registry.commit(
            create(record(clock, "b")), create(record(clock, "a")), announcing=[fact(clock)]
        )
    assert registry.get(Quarantine, "u/b") is None
    assert registry.outbox(committed_before=clock.now() + timedelta(days=1)) == []


def test_kinds_do_not_share_keys(registry, clock):
    registry.commit(create(record(clock)))
    key = ApiKey(
        secret_sha256="u/a", account=ACME, user="x", role=Role.USER, created_at=clock.now()
    )
    registry.commit(create(key))
    assert registry.get(ApiKey, "u/a").record == key
    assert registry.get(Quarantine, "u/a").record == record(clock)


def test_a_query_finds_what_matches_in_order_and_in_pages(registry, clock):
    for unit, name in itertools.product("xy", "cabd"):
        registry.commit(create(record(clock, name, unit=unit)))
    query = Query(where={"unit": "x"}, order_by="unit")
    assert [s.record.kind for s in registry.find(Quarantine, query)] == ["a", "b", "c", "d"]
    backwards = replace(query, descending=True)
    assert [s.record.kind for s in registry.find(Quarantine, backwards)] == ["d", "c", "b", "a"]
    page = registry.find(Quarantine, replace(query, limit=2))
    rest = registry.find(Quarantine, replace(query, after=("x", page[-1].record.key)))
    assert [s.record.kind for s in (*page, *rest)] == ["a", "b", "c", "d"]
    backward_rest = registry.find(Quarantine, replace(backwards, after=("x", "x/c")))
    assert [s.record.kind for s in backward_rest] == ["b", "a"]


def test_a_query_sees_the_newest_commit(registry, clock):
    registry.commit(create(record(clock)))
    stored = registry.get(Quarantine, "u/a")
    registry.commit(stored.replaced_by(record(clock, count=2)))
    (found,) = registry.find(Quarantine, Query(order_by="unit"))
    assert found == registry.get(Quarantine, "u/a")


def test_facts_wait_in_order_until_they_are_published(registry, clock):
    for number in (1, 2):
        registry.commit(announcing=[fact(clock, number)])
        clock.advance(timedelta(seconds=1))
    first, second = registry.outbox(committed_before=clock.now())
    assert (first.fact.job.id, second.fact.job.id) == ("j1", "j2")
    registry.mark_published([first])
    assert registry.outbox(committed_before=clock.now()) == [second]


def test_young_facts_are_left_to_whoever_committed_them(registry, clock):
    (entry,) = registry.commit(announcing=[fact(clock)])
    assert registry.outbox(committed_before=clock.now()) == []
    clock.advance(timedelta(seconds=1))
    assert registry.outbox(committed_before=clock.now()) == [entry]


def test_counting_by_many_threads_loses_nothing(registry, clock):
    registry.commit(create(record(clock, count=0)))

    def count_up():
        for _ in range(20):
            while True:
                stored = registry.get(Quarantine, "u/a")
                try:
                    registry.commit(
                        stored.replaced_by(replace(stored.record, count=stored.record.count + 1))
                    )
                except LostRace:
                    continue
                break

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert registry.get(Quarantine, "u/a").record.count == 80


def _commit_then_die(path: str) -> None:
    import os

    clock = MemoryClock()
    registry = SqliteRegistry(path, clock)
    registry.commit(create(record(clock)), announcing=[fact(clock)])
    os._exit(9)


def test_what_was_committed_survives_the_process_that_did_it(tmp_path, clock):
    path = tmp_path / "registry.db"
    process = multiprocessing.get_context("spawn").Process(target=_commit_then_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 9
    registry = SqliteRegistry(path, clock)
    assert registry.get(Quarantine, "u/a").record == record(clock)
    assert len(registry.outbox(committed_before=clock.now() + timedelta(days=1))) == 1
