"""
What the simulation found, each as the promise that was broken, and the seed that broke it first.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.errors import Conflict, LostRace, TryAgain
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState, MintedToken
from sublet.models import Model
from sublet.ports import ExecutionState
from sublet.training_runs import Outcome


@pytest.fixture
def trainer(world):
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    container.claim()
    return container


def test_whoever_stood_still_since_he_looked_lights_no_account(world, trainer):
    """Seed 8: a frozen broker woke up, lit an account for a lease that was over, and revived it."""
    email = world.lease_of().data_account
    get, switch, lit = world.data_accounts.get, world.cloud.set_enabled, []

    def frozen(asked):
        seen = get(asked)
        world.data_accounts.get = get
        trainer.finish()
        world.deliver()
        world.advance(minutes=1)
        return seen

    def switched(asked, *, enabled):
        lit.append(enabled)
        switch(asked, enabled=enabled)

    world.data_accounts.get = frozen
    world.cloud.set_enabled = switched
    world.data_accounts.settle(email)
    assert world.lease_of().state is LeaseState.REVOKED
    assert True not in lit


def test_the_token_that_lives_longest_is_the_one_that_is_tried(world, trainer):
    """Seed 167: of two renewals the older one was recorded last, and its dead token was probed."""
    now, lease = world.clock.now(), world.lease_of()
    first = MintedToken(sha256="1", minted_at=now, dies_at=now + timedelta(minutes=6))
    second = replace(first, sha256="2", dies_at=now + timedelta(minutes=9))
    for order in ((first, second), (second, first)):
        kept = lease
        for token in order:
            kept = kept.minted(token, sealed=f"sealed {token.sha256}")
        assert (kept.sealed_token, kept.dies_at) == ("sealed 2", second.dies_at)


def test_of_many_tokens_the_longest_lived_is_never_dropped(world, trainer):
    now, lease = world.clock.now(), world.lease_of()
    long = MintedToken(sha256="long", minted_at=now, dies_at=now + timedelta(hours=1))
    lease = lease.minted(long, sealed="long")
    for number in range(20):
        lease = lease.minted(
            replace(long, sha256=str(number), dies_at=now + timedelta(minutes=6)), sealed="short"
        )
    assert lease.sealed_token == "long" and long in lease.tokens


def test_a_token_that_comes_after_the_proof_is_recorded_nowhere(world, trainer):
    mint = world.cloud.mint

    def mint_after_the_end(*args, **kwargs):
        token = mint(*args, **kwargs)
        world.cloud.mint = mint
        world.reclaiming.stop_minting(
            trainer.lease, because="a race", outcome=Outcome(state=JobState.FAILED)
        )
        world.reclaiming.prove_end(trainer.lease)
        return token

    world.cloud.mint = mint_after_the_end
    with pytest.raises(Conflict):
        trainer.beat(wants_token=True)
    lease = world.lease_of()
    assert (lease.state, lease.sealed_token) == (LeaseState.REVOKED, "")


def test_a_record_that_somebody_deleted_meanwhile_is_a_race_that_was_lost(world, trainer):
    """Seed 207: the audit log met neither a before nor an after, and an assertion fell."""
    model = world.registry.get(Model, world.the(Job).output_model)
    world.registry.commit(model.deleted())
    for write in (model.deleted(), model.replaced_by(model.record)):
        with pytest.raises(LostRace):
            world.registry.commit(write)


def test_a_lease_whose_end_was_not_proved_is_tried_until_it_is(world, trainer):
    """Otherwise its data account would be lost to its owner for ever."""
    lease = world.registry.get(Lease, trainer.lease)
    failed = replace(
        lease.record.revoking(now=world.clock.now(), because="x"), state=LeaseState.FAILED
    )
    account = world.registry.get(DataAccount, DataAccount.key_of(failed.data_account))
    world.registry.commit(
        lease.replaced_by(failed), account.replaced_by(account.record.left_by(failed))
    )
    world.advance(minutes=10)
    assert world.sweep.run().repairs["end proved"] == 1
    assert world.lease_of().state is LeaseState.REVOKED


def test_a_holder_who_is_fenced_while_it_finishes_has_no_say(world, trainer):
    """Seed 25346: the next try claimed the lease after its last heartbeat, and its job was over."""
    get = world.data_accounts.get

    def taken_over_meanwhile(email):
        world.data_accounts.get = get
        world.container(attempt=1).claim()
        return get(email)

    world.data_accounts.get = taken_over_meanwhile
    with pytest.raises(Conflict):
        trainer.finish()
    assert world.lease_of().state is LeaseState.ACTIVE
    assert world.the(Job).state is JobState.RUNNING


def test_a_heartbeat_that_stood_still_takes_no_checkpoint_back(world, trainer):
    """Seed 242: a frozen broker woke up, and an older checkpoint stood for the newest again."""
    get = world.reclaiming.get

    def frozen(name):
        world.reclaiming.get = get
        world.advance(minutes=1)
        trainer.beat(checkpoint="models/m/checkpoints/step-2")
        return get(name)

    world.reclaiming.get = frozen
    with pytest.raises(TryAgain, match="stood still"):
        trainer.beat(checkpoint="models/m/checkpoints/step-1")
    assert world.lease_of().checkpoint == "models/m/checkpoints/step-2"


def test_how_far_an_execution_came_is_looked_up_when_it_is_over(world, trainer):
    """Seed 866: a frozen sweep held an old look at the lease against a new one at the job."""
    get = world.registry.get

    def frozen(kind, key):
        if kind is Job:
            world.registry.get = get
            trainer.beat(checkpoint="models/m/checkpoints/step-1")
            world.runner.end("execution-1", ExecutionState.FAILED, "its time limit")
        return get(kind, key)

    world.advance(minutes=2)
    world.registry.get = frozen
    assert world.sweep.run().repairs == {"training continued": 1}
    assert world.the(Job).resume_from == "models/m/checkpoints/step-1"


def came_back(_world, trainer):
    trainer.beat()


def was_followed(_world, trainer):
    trainer.attempt = 1
    trainer.claim()


def was_given_a_successor(world, trainer):
    world.runner.end(trainer.execution, ExecutionState.FAILED, "its time limit")
    world.sweep.run()


@pytest.mark.parametrize("meanwhile", [came_back, was_followed, was_given_a_successor])
def test_a_sweep_that_stood_still_ends_no_lease_whose_holder_is_no_longer_silent(
    world, trainer, meanwhile
):
    """Seed 1120220: a training that had gone on in another execution was ended for the first."""
    trainer.beat(checkpoint="models/m/checkpoints/step-1")
    world.advance(minutes=11)
    attempt = world.revocation.attempt

    def frozen(*asked, **why):
        world.revocation.attempt = attempt
        meanwhile(world, trainer)
        return attempt(*asked, **why)

    world.revocation.attempt = frozen
    assert world.sweep.run().failures == []
    assert world.lease_of().state is LeaseState.ACTIVE
    assert world.the(Job).state is JobState.RUNNING


def deliver_while_starting(world, meanwhile):
    """Deliver to a dispatch that stands still once it has started a container."""
    world.announce(world.drop())
    start = world.runner.start

    def frozen(job, lease, machine):
        execution = start(job, lease, machine)
        world.runner.start = start
        meanwhile(job, lease, execution)
        return execution

    world.runner.start = frozen
    world.deliver()


def test_an_execution_is_not_recorded_in_a_job_that_was_resumed_meanwhile(world):
    """Seed 904652: a frozen dispatch woke up, and its old execution hid that nothing ran."""

    def resumed(job, lease, _execution):
        world.training_runs.end(job, Outcome(state=JobState.CANCELLED))
        world.revocation.attempt(lease, because="cancelled")
        world.training_runs.resume(job)

    deliver_while_starting(world, resumed)
    assert (world.the(Job).state, world.the(Job).execution) == (JobState.CREATING, "")


def test_an_execution_is_not_recorded_in_a_job_that_goes_on_in_another(world):
    """Seed 904358: as above, and the training that had got further was ended with it."""

    def goes_on(_job, _lease, execution):
        container = world.container(execution)
        container.claim()
        container.beat(checkpoint="models/m/checkpoints/step-1")
        world.runner.end(execution, ExecutionState.FAILED, "its time limit")
        world.advance(minutes=2)
        world.sweep.run()

    deliver_while_starting(world, goes_on)
    job = world.the(Job)
    assert (job.state, job.execution) == (JobState.RUNNING, "")
    assert job.resume_from == "models/m/checkpoints/step-1"


def registered_beside(world, before_the_probe):
    """The lease of a registration whose token was tried right after something had happened."""
    probe = world.cloud.probe

    def later(*asked, **more):
        world.cloud.probe = probe
        before_the_probe()
        return probe(*asked, **more)

    world.cloud.probe = later
    neighbour = world.drop(name="data/neighbour.jsonl")
    world.announce(neighbour)
    return next(lease for lease in world.all(Lease) if lease.reads == neighbour)


def state_of(world, lease):
    return world.registry.get(Lease, lease.name).record.state


def test_a_grant_that_is_gone_for_a_while_proves_no_end_of_a_token(shared):
    """Seed 935153: a shared account stayed lit, and the token of a proved end opened its object."""
    (bucket,) = shared.cloud.buckets
    granted = shared.cloud.buckets[bucket].policy.bindings
    lease = registered_beside(shared, lambda: shared.cloud.set_bindings(bucket, []))
    assert (lease.state, lease.last_probe.answers) == (LeaseState.REVOKING, "read: 403")
    shared.cloud.set_bindings(bucket, granted)
    shared.advance(seconds=71)
    shared.sweep.run()
    assert state_of(shared, lease) is LeaseState.REVOKED


def test_a_switch_that_is_felt_late_proves_no_end_of_a_token_of_an_account_to_be_lit(shared):
    """Seed 954210: an account went dark after all, was lit again, and revived what was proved."""
    account = shared.lease_of().data_account
    lease = registered_beside(shared, lambda: shared.cloud.disabled.add(account))
    assert (lease.state, lease.last_probe.answers) == (LeaseState.REVOKING, "read: 401")
    shared.cloud.disabled.discard(account)
    shared.advance(seconds=71)
    shared.sweep.run()
    assert state_of(shared, lease) is LeaseState.REVOKED


def test_a_missing_grant_proves_no_end_while_the_account_is_not_felt_to_be_dark(world, trainer):
    """Seed 957715: the grant came back before the darkness did."""
    trainer.claim()
    lease = world.lease_of()
    (bucket,) = world.cloud.buckets
    granted, switch = world.cloud.buckets[bucket].policy.bindings, world.cloud.set_enabled
    world.cloud.set_enabled = lambda *_, **__: None
    world.cloud.set_bindings(bucket, [])
    trainer.finish()
    world.revocation.attempt(lease.name, because="its holder finished")
    assert state_of(world, lease) is LeaseState.REVOKING
    world.cloud.set_bindings(bucket, granted)
    assert world.opens(trainer.tokens[-1], lease.reads) == 200
    world.cloud.set_enabled = switch
    world.sweep.run()
    assert state_of(world, lease) is LeaseState.REVOKED
    assert world.opens(trainer.tokens[-1], lease.reads) == 401
