"""Attacks on the end of access: races, refusals that look like an end, records that vanish."""

import pytest
from attacks.catalogue import attack
from enforced_world import BROKER, SWITCHES

from sublet.errors import Conflict, FailedPrecondition, TryAgain
from sublet.jobs import JobState
from sublet.leases import Lease, LeaseState
from sublet.local.iam.service_accounts import service_account_resource
from sublet.training_runs import Outcome


@attack(
    22,
    "a token is renewed at the moment in which the lease ends (revoke race)",
    stopped_by="epochs: a renewal names the one it was given, and a token that was minted for "
    "an earlier one is handed to nobody; its account is disabled by then",
)
def test_revoke_race(world, trainer):
    trainer.beat(wants_token=True)
    assert [world.opens(token, world.version) for token in trainer.tokens] == [200, 200]

    minted, mint = [], world.cloud.mint

    def mint_while_ending(*args, **kwargs):
        minted.append(mint(*args, **kwargs).secret)
        ended = Outcome(state=JobState.CANCELLED)
        world.reclaiming.stop_minting(trainer.lease, because="cancelled", outcome=ended)
        return type(world.assignment.token)(
            secret=minted[0], expires_at=world.assignment.token.expires_at
        )

    world.minting._mint = type("Mint", (), {"mint": staticmethod(mint_while_ending)})
    with pytest.raises(Conflict):
        trainer.beat(wants_token=True)
    assert len(trainer.tokens) == 2
    assert [world.opens(token, world.version) for token in (*trainer.tokens, *minted)] == [401] * 3
    with pytest.raises((Conflict, FailedPrecondition)):
        trainer.beat(wants_token=True)


@attack(
    23,
    "the administrative call is refused, and that is taken for an end (403 as gone)",
    stopped_by="only a refused probe of the last token, or the account's absence, ends a "
    "lease; six failed tries call a person, and the lease is kept",
)
def test_403_as_gone(world, trainer):
    resource = service_account_resource(world.lease_of().data_account)

    def without_switch(cloud):
        policy = cloud.iam.policies.get(resource)
        kept = tuple(b for b in policy.bindings if b.role != SWITCHES)
        changed = type(policy)(version=3, etag=policy.etag, bindings=kept)
        cloud.iam.policies.set(resource, changed, wrote_version=3)

    world._running.do(without_switch)
    trainer.finish()
    with pytest.raises(TryAgain, match="not refused yet"):
        world.deliver()
    assert (world.lease_of().state, world.lease_of().num_probes) == (LeaseState.REVOKING, 1)
    assert world.opens(trainer.tokens[0], world.version) == 200

    world._running.allow(resource, SWITCHES, BROKER)
    world.advance(seconds=30)
    assert world.sweep.run().failures == []
    assert world.lease_of().state is LeaseState.REVOKED
    assert world.opens(trainer.tokens[0], world.version) == 401


@attack(
    24,
    "the lease's record is deleted while its token lives, so that nobody will end it",
    stopped_by="the sweep looks at the data accounts themselves: one that is lit for a lease "
    "of which there is no record is disabled; and the token dies of age whoever forgets it",
)
def test_lost_record(world, trainer):
    lease = world.registry.get(Lease, trainer.lease)
    world.registry._inner.commit(lease.deleted())
    assert world.opens(trainer.tokens[0], world.version) == 200
    world.advance(minutes=1)
    world.sweep.run()
    world.advance(hours=1)
    token = world._running.token(lease.record.data_account)
    world.sweep.run()
    assert not world.cloud.is_enabled(lease.record.data_account)
    assert world.opens(token, world.version) == 401

    world.advance(minutes=2)
    second = world.drop(name="data/second.jsonl")
    world.announce(second)
    world.advance(minutes=2)
    world.deliver()
    other = world.container("execution-2")
    other.claim()
    world.sweep.run()
    assert world.opens(other.tokens[0], second) == 200
