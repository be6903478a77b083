"""Access ends, whatever crashes; and its end is tried, not assumed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from memory_world import ACME, REGISTRAR

from sublet.datasets import DatasetState
from sublet.delivery import SignedReceipt
from sublet.errors import FailedPrecondition, TryAgain
from sublet.events import TrainingRequested
from sublet.handover import Ending
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState
from sublet.ports import ExecutionState, Query


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
    assert lease.state is LeaseState.FAILED and lease.num_probes >= world.terms.max_probes
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


def test_a_404_of_the_switch_is_no_end_while_the_token_still_opens(world, trainer):
    """The name may be wrong, and the account alive under the right one: the probe decides."""
    world.cloud.missing_accounts.add(world.lease_of().data_account)
    trainer.finish()
    with pytest.raises(TryAgain, match="not refused yet"):
        world.deliver()
    lease = world.lease_of()
    assert (lease.state, lease.num_probes) == (LeaseState.REVOKING, 1)
    assert world.opens(trainer.tokens[0], world.version) == 200


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


def test_an_account_with_a_lease_that_failed_to_end_gets_no_new_lease(world, trainer):
    """Its token may live: a person looks first. The other account of the pool goes on."""
    used = world.lease_of().data_account
    fail_to_end(world, trainer)
    assert world.lease_of().state is LeaseState.FAILED
    for number in range(3):
        world.advance(minutes=6)
        world.announce(world.drop(name=f"data/{number}.jsonl"))
    accounts = {lease.data_account for lease in world.all(Lease) if lease.created_at > world.failed}
    assert used not in accounts and len(accounts) == 1


def fail_to_end(world, trainer) -> None:
    world.cloud.refuses_to_switch = True
    trainer.finish()
    real = world.cloud.probe

    def still_alive(token, **asked):
        return replace(real(token, **asked), is_refused=False, answers="read: 200")

    world.reclaiming._probe = type("P", (), {"probe": staticmethod(still_alive)})
    for _ in range(20):
        sweep_after(world, minutes=6)
    world.reclaiming._probe = world.cloud
    world.cloud.refuses_to_switch = False
    world.failed = world.clock.now()


def test_a_lease_that_failed_is_tried_ever_more_rarely_and_ends_when_its_token_is_refused(
    world, trainer
):
    fail_to_end(world, trainer)
    tries = world.lease_of().num_probes
    assert world.terms.max_probes < tries < 20
    world.revocation.attempt(trainer.lease, because="an operator asked")
    assert (world.lease_of().state, world.lease_of().num_probes) == (LeaseState.FAILED, tries)
    sweep_after(world, days=1)
    assert world.lease_of().state is LeaseState.REVOKED


def test_the_leases_that_call_for_a_person_are_listed_first(world, trainer):
    fail_to_end(world, trainer)
    world.announce(world.drop(name="data/later.jsonl"))
    newest_first = Query(order_by="attention", descending=True)
    listed = [s.record for s in world.registry.find(Lease, newest_first)]
    assert listed[0].state is LeaseState.FAILED
    rest = [lease.created_at for lease in listed[1:]]
    assert rest == sorted(rest, reverse=True) and rest[0] > listed[0].created_at


def test_an_iam_that_does_not_answer_is_not_an_end_and_hides_none(world, trainer):
    """The account stays lit; the token's own age is then what the probe sees."""
    real = world.cloud.set_enabled
    world.cloud.set_enabled = lambda *_, **__: (_ for _ in ()).throw(TryAgain("IAM is away"))
    trainer.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    assert world.lease_of().state is LeaseState.REVOKING
    sweep_after(world, minutes=6)
    assert world.lease_of().state is LeaseState.REVOKED
    world.cloud.set_enabled = real


class Interrupted:
    """The switch of data accounts; at its nth use something else happens, before it or after."""

    def __init__(self, world, nth: int, *, first: bool, happens) -> None:
        self._real, self._nth, self._first, self._happens = world.cloud, nth, first, happens
        self.num_uses = 0

    def set_enabled(self, email, *, enabled) -> None:
        self.num_uses += 1
        is_now = self.num_uses == self._nth
        if is_now and self._first:
            self._happens()
        self._real.set_enabled(email, enabled=enabled)
        if is_now and not self._first:
            self._happens()


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("lives", [True, False], ids=["lives", "is over"])
def test_a_lease_that_starts_while_another_ends_leaves_the_account_as_recorded(
    shared, lives, first
):
    """
    One account for both, so that the switch of each can undo that of the other: whoever darkens it
    stands still until its tokens are dead.
    """
    world, ending = shared, shared.trainer
    second = world.drop(name="data/second.jsonl")
    broker, started = world.broker(REGISTRAR), []

    def start():
        world.advance(minutes=6)
        identity = world.cloud.buckets["acme-data"].metadata.identity
        started.append(broker.open_for_verification(ACME, second, identity))
        if not lives:
            (over,) = started
            broker.finish(over.lease, Ending(epoch=over.epoch, bytes_read=0, is_success=True))
            world.advance(seconds=71)
            world.data_accounts.darken(over.data_account)

    switch = Interrupted(world, 1, first=first, happens=start)
    world.data_accounts._switch = switch
    ending.finish()
    assert switch.num_uses == (3 if lives else 4)
    (account,) = world.all(DataAccount)
    assert (account.holders != ()) == lives
    assert (account.email not in world.cloud.disabled) == lives
    assert world.opens(started[0].token.secret, second) == (200 if lives else 401)
    assert world.opens(ending.tokens[0], world.all(Job)[0].object) == 401


def test_a_lease_that_shares_a_lit_account_asks_nothing_of_its_switch(shared):
    """Of the three calls that a registration made, all said what was so already."""
    world = shared
    switch = Interrupted(world, 0, first=True, happens=lambda: None)
    world.data_accounts._switch = switch
    dataset = world.announce(world.drop(name="data/second.jsonl"))
    assert dataset.state is DatasetState.READY
    assert switch.num_uses == 0


def test_an_account_that_was_darkened_by_a_process_that_died_is_lit_by_the_next_heartbeat(
    world, trainer
):
    world.cloud.disabled.add(world.lease_of().data_account)
    trainer.beat(wants_token=True)
    assert world.opens(trainer.tokens[-1], world.version) == 200


def test_a_token_whose_seal_is_lost_is_judged_by_its_age_and_the_receipt_says_so(world, trainer):
    def lost(_):
        raise FailedPrecondition("the sealed token was sealed with another key")

    world.reclaiming._seal.unseal = lost
    trainer.finish()
    with pytest.raises(TryAgain, match="a key that is lost; it lives"):
        world.deliver()
    sweep_after(world, minutes=6)
    lease = world.lease_of()
    assert lease.state is LeaseState.REVOKED
    assert (
        lease.last_probe.answers == "the token was sealed with a key that is lost; it died of age"
    )
    signed = world.the(SignedReceipt)
    assert "a key that is lost" in signed.text and signed.delivered_to == ""
    assert not lease.owes_receipt
