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
from simulation.ports import SwiftRegistry

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


@pytest.fixture(params=["memory", "simulation", "sqlite", "firestore"])
def registry(request, clock, tmp_path):
    match request.param:
        case "memory":
            return MemoryRegistry(clock)
        case "simulation":
            return SwiftRegistry(clock)
        case "sqlite":
            return SqliteRegistry(tmp_path / "registry.db", clock)
        case "firestore":
            return request.getfixturevalue("firestore").registry(clock)


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


def api_key(clock, secret="u/a", user="x") -> ApiKey:
    return ApiKey(
        secret_sha256=secret, account=ACME, user=user, role=Role.USER, created_at=clock.now()
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


@pytest.mark.parametrize("descending", [False, True])
def test_a_count_is_of_what_a_find_without_a_limit_gives(registry, clock, descending):
    keys = []
    for number, user in enumerate("uuuvv"):
        key = ApiKey(
            secret_sha256=f"{number}",
            account=ACME,
            user=user,
            role=Role.ADMIN,
            created_at=clock.now(),
        )
        registry.commit(create(key))
        keys.append(key)
        clock.advance(timedelta(minutes=1))
    place = keys[1].index()["created_at"], keys[1].key
    for user, after, expected in (
        ({}, None, 5),
        ({"user": "u"}, None, 3),
        ({"user": "u"}, place, 1),
        ({"user": "none"}, None, 0),
        ({}, place, 1 if descending else 3),
    ):
        where = {"account": ACME, **user}
        query = Query(where=where, descending=descending, after=after, limit=1)
        assert registry.count(ApiKey, query) == expected


def test_a_write_to_a_version_that_is_gone_is_lost(registry, clock):
    registry.commit(create(record(clock)))
    stale = registry.get(Quarantine, "u/a")
    registry.commit(stale.replaced_by(record(clock, count=2)))
    with pytest.raises(LostRace):
        registry.commit(stale.replaced_by(record(clock, count=3)))
    with pytest.raises(LostRace):
        registry.commit(stale.deleted())
    assert registry.get(Quarantine, "u/a").record.count == 2


def test_a_write_of_the_same_again_is_a_write(registry, clock):
    """Or two that read the same version could both be told that they were the one to write."""
    registry.commit(create(record(clock)))
    stale = registry.get(Quarantine, "u/a")
    registry.commit(stale.replaced_by(stale.record))
    with pytest.raises(LostRace):
        registry.commit(stale.replaced_by(stale.record))


def test_what_is_deleted_is_gone(registry, clock):
    registry.commit(create(record(clock)))
    registry.commit(registry.get(Quarantine, "u/a").deleted())
    assert registry.get(Quarantine, "u/a") is None
    assert registry.find(Quarantine, Query()) == []
    assert registry.count(Quarantine, Query()) == 0


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
    key = api_key(clock)
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


def test_a_field_that_no_record_has_orders_nothing_and_hides_nothing(registry, clock):
    for name in "ba":
        registry.commit(create(record(clock, name)))
    by_name = Query(order_by="name")
    assert [s.record.kind for s in registry.find(Quarantine, by_name)] == ["a", "b"]
    (rest,) = registry.find(Quarantine, replace(by_name, after=("", "u/a")))
    assert rest.record.kind == "b"
    assert registry.find(Quarantine, Query(where={"name": "a"})) == []


def test_ties_fall_to_the_key_character_by_character(registry, clock):
    """Keys are paths, and a database may have to write them otherwise."""
    names = ["__b__", "a", "a-b", "a.", "a..", "a./", "a.b", "a.~b", "a.é"]
    names += ["a/", "a/.", "a/b", "a/é", "a0", "a~", "b"]
    for name in names:
        registry.commit(create(record(clock, name)))
    expected = sorted(names)
    query = Query(order_by="name")
    assert [s.record.kind for s in registry.find(Quarantine, query)] == expected
    for number, name in enumerate(expected):
        rest = registry.find(Quarantine, replace(query, after=("", f"u/{name}"), limit=1))
        assert [s.record.kind for s in rest] == expected[number + 1 : number + 2]


def test_a_query_sees_the_newest_commit(registry, clock):
    registry.commit(create(record(clock)))
    stored = registry.get(Quarantine, "u/a")
    registry.commit(stored.replaced_by(record(clock, count=2)))
    (found,) = registry.find(Quarantine, Query())
    assert found == registry.get(Quarantine, "u/a")


def test_facts_wait_in_order_until_they_are_published(registry, clock):
    for number in (1, 2):
        registry.commit(announcing=[fact(clock, number)])
        clock.advance(timedelta(seconds=1))
    first, second = registry.outbox(committed_before=clock.now())
    assert (first.fact.job.id, second.fact.job.id) == ("j1", "j2")
    registry.mark_published([first])
    assert registry.outbox(committed_before=clock.now()) == [second]


def test_facts_of_one_commit_keep_their_order(registry, clock):
    numbers = range(1, 13)
    registry.commit(announcing=[fact(clock, number) for number in numbers])
    clock.advance(timedelta(seconds=1))
    entries = registry.outbox(committed_before=clock.now())
    assert [entry.fact.job.id for entry in entries] == [f"j{number}" for number in numbers]
    assert registry.outbox(committed_before=clock.now(), limit=5) == entries[:5]


def test_a_fact_may_be_marked_published_twice(registry, clock):
    entries = registry.commit(announcing=[fact(clock)])
    registry.mark_published(entries)
    registry.mark_published(entries)
    assert registry.outbox(committed_before=clock.now() + timedelta(days=1)) == []


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
