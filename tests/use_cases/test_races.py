"""
What the simulation found, each as the promise that was broken, and the seed that broke it first.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.errors import Conflict, LostRace
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState, MintedToken
from sublet.models import Model
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
