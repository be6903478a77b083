"""
Promise 4 on a moved clock: whatever is dead, no token works past the bound that the receipt states.
"""

from datetime import timedelta

import pytest

from sublet.bounds import worst_cases
from sublet.errors import SubletError, TryAgain
from sublet.leases import Lease, LeaseState, LeaseTerms
from sublet.ports import ExecutionState

TERMS = LeaseTerms(training_limit=timedelta(minutes=30))
TICK = timedelta(seconds=10)


class Scene:
    """A training that has just claimed its lease, and what of sublet still runs, tick by tick."""

    def __init__(self, world) -> None:
        self.world = world
        world.version = world.drop()
        world.announce(world.version)
        world.advance(minutes=2)
        world.deliver()
        self.trainer = world.container()
        self.opened_at = world.lease_of().created_at
        self.trainer.claim()
        self.minted_at = world.clock.now()
        self.running = {"holder", "broker", "functions"}

    def kill(self, *parts: str) -> None:
        self.running -= set(parts)
        if "holder" in parts:
            self.world.runner.end("execution-1", ExecutionState.FAILED, "killed")
        if "broker" in parts:
            for verb in ("renew", "finish", "revoke", "claim", "open_for_training", "settle"):
                setattr(self.world.lending, verb, dead)

    def tick(self) -> None:
        self.world.clock.advance(TICK)
        if "holder" in self.running:
            self.beat()
        if "functions" in self.running:
            self.world.sweep.run()
            try:
                self.world.deliver()
            except TryAgain:
                return

    def beat(self) -> None:
        """A trainer that was taken over: it wants a token as often as it may, and never ends."""
        known = len(self.trainer.tokens)
        try:
            self.trainer.beat(wants_token=True)
        except SubletError:
            return
        if len(self.trainer.tokens) > known:
            self.minted_at = self.world.clock.now()

    def opens_something(self) -> bool:
        opens = self.world.opens
        return any(opens(token, self.world.version) == 200 for token in self.trainer.tokens)


def dead(*_, **__):
    raise TryAgain("it is dead")


def finish(scene: Scene) -> None:
    scene.trainer.finish()
    scene.kill("holder")


SCENES = {
    "nothing is dead": finish,
    "the holder is dead": lambda scene: scene.kill("holder"),
    "the lease broker is dead": lambda scene: scene.kill("broker"),
    "everything is dead": lambda scene: scene.kill("holder", "broker", "functions"),
    "the control plane is dead, so that nobody can cancel": lambda scene: None,
    "the functions and the sweep are dead, so that nobody takes back what is renewed": (
        lambda scene: scene.kill("functions")
    ),
}
CASES = [
    pytest.param(bound, always_on, id=f"{bound.when}{', always on' if always_on else ''}")
    for always_on in (False, True)
    for bound in worst_cases(TERMS, always_on=always_on)
]


@pytest.mark.parametrize(("bound", "always_on"), CASES)
def test_no_token_works_past_the_bound_whatever_is_dead(make_world, bound, always_on):
    world = make_world(TERMS)
    world.make_account(always_on=always_on)
    world.make_bucket()
    world.watch()
    scene = Scene(world)
    assert scene.opens_something()
    SCENES[bound.when](scene)
    limit = TERMS.training_limit + bound.at_most
    while world.clock.now() - scene.opened_at <= limit:
        counted_from = (
            scene.opened_at if bound.counted_from == "the lease was opened" else scene.minted_at
        )
        if world.clock.now() - counted_from >= bound.at_most:
            assert not scene.opens_something()
        scene.tick()
    assert not scene.opens_something()


def test_a_bound_is_not_longer_than_the_token_or_the_lease_needs(make_world):
    """The bounds are sums of the settings, so that who shortens a setting shortens the bound."""
    bounds = {bound.when: bound.at_most for bound in worst_cases(TERMS)}
    assert set(bounds) == set(SCENES)
    assert bounds["everything is dead"] == TERMS.token_ttl + TERMS.clock_skew
    assert max(bounds.values()) == TERMS.training_limit + TERMS.clock_skew


def test_where_everything_is_dead_the_token_does_live_until_then(world):
    """Else the test above would show nothing."""
    scene = Scene(world)
    scene.kill("holder", "broker", "functions")
    world.clock.advance(TERMS.token_ttl - TICK)
    assert scene.opens_something()


def test_an_account_that_is_always_on_starts_at_once_and_ends_with_its_tokens_age(make_world):
    world = make_world(TERMS)
    account = world.make_account(num_data_accounts=1, always_on=True)
    world.make_bucket()
    world.watch()
    (data_account,) = account.data_accounts
    first = Scene(world)
    first.trainer.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    assert first.opens_something() and data_account not in world.cloud.disabled
    world.announce(world.drop(name="data/second.jsonl"))
    world.deliver()
    assert world.container("execution-2").claim().token
    world.advance(minutes=6)
    world.sweep.run()
    lease = world.registry.get(Lease, first.trainer.lease).record
    assert (lease.state, lease.num_probes) == (LeaseState.REVOKED, 0)
