"""Access ends, whatever crashes; and its end is tried, not assumed."""

from datetime import timedelta

import pytest

from sublet.errors import TryAgain
from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import Lease, LeaseState
from sublet.ports import ExecutionState


@pytest.fixture
def trainer(world):
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    container.claim()
    return container


def sweep_after(world, **time: float):
    world.advance(**time)
    return world.sweep.run()


def test_access_ends_even_if_the_finished_event_never_arrives(world, trainer):
    trainer.finish()
    world.publisher.waiting.clear()
    assert world.lease_of().state is LeaseState.REVOKING
    sweep_after(world, minutes=1)
    assert world.lease_of().state is LeaseState.REVOKED


def test_a_trainer_that_vanished_is_found_out_and_its_access_ended(world, trainer):
    world.runner.end("execution-1", ExecutionState.FAILED, "out of memory")
    sweep_after(world, seconds=61)
    job = world.the(Job)
    assert job.state is JobState.FAILED
    assert "never reported" in job.status.message and "out of memory" in job.status.message
    assert world.lease_of().state is LeaseState.REVOKED


def test_a_trainer_that_hangs_is_cancelled_and_its_access_ended(world, trainer):
    sweep_after(world, minutes=9)
    assert world.the(Job).state is JobState.RUNNING
    sweep_after(world, minutes=2)
    assert world.runner.look_up("execution-1").state is ExecutionState.CANCELLED
    assert world.lease_of().state is LeaseState.REVOKED


def test_an_expired_lease_is_ended_even_with_a_living_holder(world, trainer):
    for _ in range(12 * 60):
        world.advance(seconds=59)
        trainer.beat()
    sweep_after(world, minutes=13)
    assert world.lease_of().state is LeaseState.REVOKED
    assert "expired" in world.the(Job).status.message


def test_a_registration_that_crashed_leaves_no_lease_behind(world):
    def crash(*_):
        raise SystemExit

    world.cloud.open_objects = crash
    world.verification._open_objects = crash
    finish = world.verification._broker.finish
    world.verification._broker.finish = lambda *_: (_ for _ in ()).throw(SystemExit)
    with pytest.raises(SystemExit):
        world.announce(world.drop())
    world.verification._broker.finish = finish
    assert world.the(Lease).state is LeaseState.ACTIVE
    sweep_after(world, seconds=61)
    assert world.the(Lease).state is LeaseState.REVOKED


def test_a_403_while_revoking_is_not_reported_as_revoked(world, trainer):
    world.cloud.refuses_to_switch = True
    trainer.finish()
    with pytest.raises(TryAgain, match="not refused yet"):
        world.deliver()
    lease = world.lease_of()
    assert (lease.state, lease.num_probes) == (LeaseState.REVOKING, 1)
    assert world.opens(trainer.tokens[0], world.version) == 200


def test_even_then_the_end_comes_with_the_tokens_age_and_is_proved(world, trainer):
    world.cloud.refuses_to_switch = True
    trainer.finish()
    sweep_after(world, minutes=1)
    sweep_after(world, minutes=5)
    assert world.lease_of().state is LeaseState.REVOKED
    assert world.lease_of().last_probe.answers == "read: 401, create: 401"


def test_six_failed_tries_call_a_person_and_the_lease_is_kept(world, trainer):
    real = world.cloud.probe
    world.cloud.refuses_to_switch = True
    trainer.finish()

    def still_alive(token, **asked):
        probe = real(token, **asked)
        return type(probe)(at=probe.at, is_refused=False, answers="read: 200")

    world.reclaiming._probe = type("P", (), {"probe": staticmethod(still_alive)})
    for _ in range(20):
        sweep_after(world, minutes=6)
    lease = world.lease_of()
    assert (lease.state, lease.num_probes) == (LeaseState.FAILED, 6)
    assert lease.sealed_token


def test_tries_back_off(world, trainer):
    world.cloud.refuses_to_switch = True
    trainer.finish()
    for seconds, tries in ((0, 1), (9, 1), (1, 2), (19, 2), (1, 3)):
        sweep_after(world, seconds=seconds)
        assert world.lease_of().num_probes == tries


def test_an_account_that_was_deleted_has_no_living_token(world, trainer):
    used = world.lease_of().data_account
    trainer.finish()
    world.cloud.missing_accounts.add(used)
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED


def test_a_lease_that_never_minted_ends_without_a_probe(world):
    world.announce(world.drop())
    world.deliver()
    world.runner.end("execution-1", ExecutionState.FAILED, "image not found")
    sweep_after(world, seconds=61)
    lease = world.lease_of()
    assert (lease.state, lease.last_probe.answers) == (
        LeaseState.REVOKED,
        "no token was ever minted",
    )


def test_a_job_that_nobody_started_is_asked_for_again(world):
    world.announce(world.drop())
    world.publisher.waiting.clear()
    sweep_after(world, seconds=61)
    assert [type(fact) for fact in world.publisher.waiting] == [TrainingRequested]
    world.deliver()
    assert world.the(Job).state is JobState.PENDING


def test_one_bad_row_does_not_keep_the_others_waiting(world, trainer):
    second = world.drop(name="data/second.jsonl")
    world.advance(minutes=6)
    world.announce(second)
    world.deliver()
    other = world.container("execution-2")
    other.claim()
    for name in ("execution-1", "execution-2"):
        world.runner.end(name, ExecutionState.FAILED)
    look_up = world.runner.look_up

    def broken(execution):
        if execution == "execution-1":
            raise TryAgain("Cloud Run is busy")
        return look_up(execution)

    world.runner.look_up = broken
    report = sweep_after(world, seconds=61)
    assert report.failures == ["Cloud Run is busy"]
    assert report.repairs["lease ended"] == 1
    assert {job.state for job in world.all(Job)} == {JobState.RUNNING, JobState.FAILED}


def test_a_second_sweep_of_a_quiet_world_changes_nothing(world, trainer):
    trainer.finish()
    world.deliver()
    sweep_after(world, minutes=1)
    written = len(world.publisher.published)
    report = sweep_after(world, minutes=1)
    assert not report.repairs and not report.failures
    assert len(world.publisher.published) == written


def test_the_receipt_accounts_for_every_byte_and_for_its_end(world, trainer):
    from sublet.receipts import receipt_of

    before = world.clock.now()
    trainer.finish(bytes_read=700)
    world.deliver()
    receipt = receipt_of(world.registry, world.the(Job).name)
    verification, training = receipt.readings
    assert receipt.is_refused and receipt.object == world.version
    assert (verification.purpose, verification.bytes_read) == (
        "VERIFICATION",
        world.cloud.bytes_served,
    )
    assert (training.purpose, training.bytes_read) == ("TRAINING", 700)
    assert training.started_at <= training.minting_stopped_at <= training.last_possible_use
    assert training.last_possible_use - before < timedelta(minutes=5)
    assert training.tokens[0].sha256 not in ("", trainer.tokens[0])
