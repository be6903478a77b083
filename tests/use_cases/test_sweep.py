"""What events missed is mended from the records and from the cloud; a quiet world is left alone."""

from dataclasses import replace

import pytest
from memory_world import ACME, REVOKER

from sublet.datasets import Dataset
from sublet.deletion import Deletion
from sublet.errors import AccessDenied, TryAgain
from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState, Purpose
from sublet.memory.registry import MemoryRegistry
from sublet.names import LIVE_GENERATION, AccountName, JobName, LeaseName, ObjectVersion
from sublet.ports import DeadLetter, ExecutionState, Query, create
from sublet.quarantine import Quarantine
from sublet.repairs import Row
from sublet.sweep import SweepPlace, in_turns
from sublet.training_runs import Outcome
from sublet.watches import Watch


def sweep_after(world, **time: float):
    world.advance(**time)
    return world.sweep.run()


def writes_of(world) -> dict[tuple[str, str], int]:
    """Every record with its version: equal twice, if nothing was written in between."""
    registry = world.registry
    while not isinstance(registry, MemoryRegistry):
        registry = registry._inner
    return {place: version for place, (_, version) in registry._rows.items()}


@pytest.fixture
def running(world):
    """A job that trains, and its container."""
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    container.claim()
    return container


# --- objects that no event told of ----------------------------------------------------------------


def test_a_file_whose_event_was_lost_is_found_and_trained(world):
    world.advance(minutes=1)
    version = world.drop()
    assert sweep_after(world, minutes=62).repairs == {"object found": 1}
    world.deliver()
    assert world.the(Dataset).object == version
    assert world.the(Job).object == version


def test_a_file_is_given_time_for_its_event(world):
    world.advance(minutes=55)
    world.drop()
    assert not sweep_after(world, minutes=6).repairs
    assert sweep_after(world, hours=1).repairs == {"object found": 1}


def test_files_that_were_there_before_the_watch_are_none_of_its(world):
    world.drop(name="later/old.jsonl")
    world.advance(minutes=1)
    world.watch(prefix="later/")
    assert not sweep_after(world, hours=2).repairs


def test_files_that_came_while_a_watch_was_off_stay_untrained_when_it_is_on_again(world):
    (stored,) = world.registry.find(Watch, Query())
    world.registry.commit(stored.replaced_by(stored.record.turned(on=False, now=world.clock.now())))
    sweep_after(world, minutes=1)
    world.drop(name="data/while-off.jsonl")
    world.advance(hours=2)
    (stored,) = world.registry.find(Watch, Query())
    world.registry.commit(stored.replaced_by(stored.record.turned(on=True, now=world.clock.now())))
    sweep_after(world, minutes=1)
    world.advance(minutes=1)
    later = world.drop(name="data/on-again.jsonl")
    sweep_after(world, hours=2)
    world.deliver()
    assert world.the(Dataset).object == later


def test_what_is_registered_or_was_deleted_is_not_found_again(world, running):
    running.finish()
    world.deliver()
    world.advance(minutes=10)
    deleted = world.announce(world.drop(name="data/deleted.jsonl"))
    world.deliver()
    job = next(j for j in world.all(Job) if j.dataset == deleted.name)
    world.training_runs.end(job.name, Outcome(state=JobState.CANCELLED))
    Deletion(world.registry, world.clock).delete_dataset(deleted.name)
    world.deliver()
    world.advance(minutes=15)
    assert "object found" not in sweep_after(world, hours=1).repairs


def test_a_long_prefix_is_looked_through_page_by_page(world, monkeypatch):
    monkeypatch.setattr("sublet.looks._NAMES_A_LOOK", 2)
    world.advance(minutes=1)
    for number in range(5):
        world.drop(name=f"data/{number}.jsonl")
    world.advance(hours=1)
    found = []
    for _ in range(3):
        found.append(world.sweep.run().repairs["object found"])
        world.advance(minutes=2)
    assert found == [2, 2, 1]
    assert not sweep_after(world, minutes=1).repairs["object found"]


def test_a_prefix_is_listed_under_a_lease_that_ends_right_after_and_reads_nothing(world):
    sweep_after(world, hours=1)
    lease = world.the(Lease)
    assert (lease.purpose, lease.state) == (Purpose.VERIFICATION, LeaseState.REVOKED)
    assert lease.reads.is_folder and world.cloud.bytes_served == 0


def test_the_sweep_may_hold_a_lease_of_a_folder_and_of_no_object(world):
    identity = world.cloud.buckets["acme-data"].metadata.identity
    version = world.drop()
    broker = world.broker(REVOKER)
    with pytest.raises(AccessDenied):
        broker.open_for_verification(ACME, version, identity)
    folder = ObjectVersion(bucket="acme-data", object="data/", generation=LIVE_GENERATION)
    assert broker.open_for_verification(ACME, folder, identity).reads == folder


def test_a_bucket_that_lets_nobody_look_fails_no_sweep(world):
    world.cloud.grant("acme-data", "roles/storage.objectViewer", "allUsers")
    report = sweep_after(world, hours=1)
    assert not report.failures and world.all(Lease) == []


# --- jobs, trainers and their containers ----------------------------------------------------------


def test_a_job_that_cannot_start_is_asked_for_after_pauses_that_double(world):
    world.announce(world.drop())
    minutes = []
    for minute in range(1, 40):
        world.publisher.waiting.clear()
        sweep_after(world, minutes=1)
        if any(isinstance(fact, TrainingRequested) for fact in world.publisher.waiting):
            minutes.append(minute)
    assert minutes == [2, 5, 10, 19, 36]


def test_two_sweeps_at_a_time_ask_once(world):
    world.announce(world.drop())
    world.publisher.waiting.clear()
    world.advance(minutes=2)
    seen_twice = [*world.sweep._jobs.rows(), *world.sweep._jobs.rows()]
    mended = [repair.mend() for row in seen_twice for repair in row.examine()]
    assert mended == [True, False]
    assert len(world.publisher.waiting) == 1


def test_a_resumed_job_is_given_time_again(world, running):
    running.finish(is_success=False, adapter=None, code="INTERNAL", message="boom")
    world.deliver()
    world.advance(hours=3)
    world.sweep.run()
    world.training_runs.resume(world.the(Job).name)
    assert not sweep_after(world, seconds=59).repairs
    assert sweep_after(world, seconds=2).repairs == {"training requested again": 1}


def test_a_silent_trainer_fails_its_job_with_the_reason_and_is_stopped(world, running):
    assert not sweep_after(world, minutes=10).repairs
    assert sweep_after(world, seconds=1).repairs == {"lease ended": 1}
    job = world.the(Job)
    assert job.state is JobState.FAILED
    assert job.status.message == "access ended: its trainer has been silent for 601 s"
    assert world.runner.look_up(job.execution).state is ExecutionState.CANCELLED


def test_a_trainer_that_is_heard_of_again_is_left_alone(world, running):
    """The lease was listed as silent, and its holder came back before it was its turn."""
    world.advance(minutes=11)
    rows_seen = list(world.sweep._leases.rows())
    running.beat()
    assert [list(row.examine()) for row in rows_seen if "1 " in row.place] == [[]]


def test_an_execution_that_the_cloud_has_forgotten_ends_its_lease_all_the_same(world, running):
    world.runner._executions.clear()
    report = sweep_after(world, minutes=11)
    assert (report.repairs, report.failures) == ({"lease ended": 1}, [])
    assert world.lease_of().state is LeaseState.REVOKED


def test_a_container_without_a_living_lease_is_cancelled_once_it_is_old_enough(world, running):
    orphan = world.runner.start(JobName.of(ACME, "j"), LeaseName.of(ACME, "ls-gone"))
    running.finish()
    world.deliver()
    assert "stray execution cancelled" not in sweep_after(world, minutes=5).repairs
    report = sweep_after(world, seconds=1)
    assert report.repairs == {"stray execution cancelled": 2}
    for name in (orphan, "execution-1"):
        assert world.runner.look_up(name).state is ExecutionState.CANCELLED


def test_the_second_container_of_a_job_is_cancelled_and_the_first_one_is_not(world, running):
    world.runner.is_seen_late = True
    second = world.runner.start(world.the(Job).name, running.lease)
    for _ in range(6):
        world.advance(minutes=1)
        running.beat()
    assert sweep_after(world, seconds=0).repairs == {"stray execution cancelled": 1}
    assert world.runner.look_up(second).state is ExecutionState.CANCELLED
    assert world.the(Job).state is JobState.RUNNING


def test_a_young_fact_is_left_to_whoever_committed_it(world):
    publish = world.publisher.publish
    world.publisher.publish = lambda entry: (_ for _ in ()).throw(TryAgain("the broker is away"))
    with pytest.raises(TryAgain):
        world.announce(world.drop())
    world.publisher.publish = publish
    assert not sweep_after(world, seconds=30).repairs
    assert sweep_after(world, seconds=1).repairs == {"fact published": 2}


# --- accounts, letters, receipts ------------------------------------------------------------------


def test_an_account_that_a_crash_left_lit_goes_dark_and_a_dark_one_in_use_is_lit(world):
    lit, dark = (account.email for account in world.all(DataAccount))
    world.cloud.disabled.discard(lit)
    lease = world.lending.open_for_verification(
        REVOKER,
        ACME,
        ObjectVersion(bucket="acme-data", object="data/", generation=LIVE_GENERATION),
        world.cloud.buckets["acme-data"].metadata.identity,
    )
    in_use, other = lease.data_account, ({lit, dark} - {lease.data_account}).pop()
    world.cloud.disabled = {in_use}
    world.advance(hours=1)
    world.sweep._leases.rows = list
    assert world.sweep.run().repairs == {"data account settled": 2}
    assert world.cloud.disabled == {other}


def test_a_dead_letter_is_counted_and_taken_away(world):
    letter = DeadLetter(
        id="ack-1", subscription="sublet-training-requested", num_deliveries=50, body=b"{}"
    )
    world.dead_letters.waiting["ack-1"] = letter
    assert sweep_after(world, minutes=1).repairs == {"dead letter quarantined": 1}
    kept = world.the(Quarantine)
    assert (kept.unit, kept.kind, kept.count) == ("sublet-training-requested", "undelivered", 1)
    assert world.dead_letters.waiting == {}


def test_a_receipt_that_its_owner_did_not_get_is_delivered_again(world, running):
    put = world.uploads.put

    def away(*_):
        raise TryAgain("Cloud Storage is busy")

    world.uploads.put = away
    running.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    world.uploads.put = put
    assert sweep_after(world, minutes=1).repairs == {"receipt delivered": 1}
    assert not world.lease_of().owes_receipt


# --- the sweep itself -----------------------------------------------------------------------------


def test_a_second_sweep_of_a_quiet_world_writes_nothing(world, running):
    running.finish()
    world.deliver()
    sweep_after(world, minutes=70)
    sweep_after(world, minutes=2)
    before = writes_of(world)
    report = sweep_after(world, minutes=2)
    assert (writes_of(world), report.to_wire()["repairs"], report.failures) == (before, {}, [])


def test_a_dry_run_says_what_it_would_do_and_does_nothing(world, running):
    world.runner.end("execution-1", ExecutionState.FAILED, "out of memory")
    world.dead_letters.waiting["a"] = DeadLetter(
        id="a", subscription="s", num_deliveries=50, body=b""
    )
    world.advance(hours=1)
    before = writes_of(world)
    report = world.sweep.run(dry_run=True)
    assert writes_of(world) == before and len(world.dead_letters.waiting) == 1
    assert report.repairs == {"lease ended": 1, "dead letter quarantined": 1, "prefix listed": 1}
    (ended,) = (line for line in report.planned if line.startswith("lease ended"))
    assert "execution-1 is FAILED and its trainer never reported: out of memory" in ended
    assert world.sweep.run().repairs["lease ended"] == 1


def test_what_was_tried_and_not_mended_is_not_counted(world, running):
    world.cloud.refuses_to_switch = True
    running.finish()
    report = sweep_after(world, minutes=1)
    assert world.lease_of().state is LeaseState.REVOKING
    assert (dict(report.repairs), report.failures) == ({}, [])


def test_a_defect_in_one_row_is_raised_after_all_others_were_tried(world, running):
    world.advance(minutes=6)
    world.announce(world.drop(name="data/second.jsonl"))
    world.deliver()
    world.container("execution-2").claim()
    look_up = world.runner.look_up

    def broken(execution):
        if execution == "execution-1":
            raise KeyError("a defect of ours")
        return look_up(execution)

    world.runner.look_up = broken
    world.runner.end("execution-2", ExecutionState.FAILED)
    world.advance(seconds=61)
    with pytest.raises(ExceptionGroup) as met:
        world.sweep.run()
    assert [type(error) for error in met.value.exceptions] == [KeyError]
    assert sorted(job.state for job in world.all(Job)) == [JobState.FAILED, JobState.RUNNING]


def row(account: str, place: str) -> Row:
    return Row(account=account, place=place, examine=list)


def test_accounts_take_turns_whatever_one_of_them_piles_up():
    flood = [row("flood", f"{number:03d}") for number in range(100)]
    others = [row(account, "000") for account in ("a", "b", "z")]
    first = [r.account for r in in_turns([*flood, *others], SweepPlace())][:5]
    assert first == ["a", "b", "flood", "z", "flood"]


def test_the_next_sweep_goes_on_where_the_time_ran_out():
    all_rows = [row(account, place) for account in "ab" for place in "123"]
    place = SweepPlace(last_account="a", places={"a": "2", "b": "1"})
    order = [(r.account, r.place) for r in in_turns(all_rows, place)]
    assert order == [("b", "2"), ("a", "3"), ("b", "3"), ("a", "1"), ("b", "1"), ("a", "2")]


def test_a_sweep_that_runs_out_of_time_comes_round_to_every_row(make_world):
    world = make_world()
    names = [AccountName.of(f"tenant-{number}") for number in range(5)]
    for name in names:
        world.make_account(name)
    for email in list(world.cloud.disabled):
        world.cloud.disabled.discard(email)
    settle = world.lending.settle

    def slowly(caller, email):
        world.advance(seconds=25)
        settle(caller, email)

    world.lending.settle = slowly
    world.advance(hours=1)
    lefts = []
    while len(world.cloud.disabled) < 10:
        lefts.append(world.sweep.run().num_left)
    assert lefts == [4, 3, 2, 1, 0]
    assert world.all(SweepPlace) == []


def test_all_rows_are_read_however_many_pages_they_take(world, monkeypatch):
    monkeypatch.setattr("sublet.repairs._PAGE", 3)
    for number in range(8):
        world.drop(name=f"data/{number}.jsonl")
    for number in range(8):
        job = replace(
            _job(world), name=JobName.of(ACME, f"j-{number}"), created_at=world.clock.now()
        )
        world.registry.commit(create(job))
    assert sweep_after(world, minutes=2).repairs["training requested again"] == 8


def _job(world) -> Job:
    if not world.all(Job):
        world.announce(world.drop())
        world.deliver()
        world.container().claim()
    return replace(world.all(Job)[0], execution="", state=JobState.CREATING, lease=None)
