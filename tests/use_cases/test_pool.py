"""A pool of data accounts never rests whole after checks, and nothing stays lit for nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest
from memory_world import ACME, REGISTRAR, REVOKER

from sublet.account_settings import AccountSettings
from sublet.datasets import DatasetState
from sublet.errors import TryAgain
from sublet.handover import Ending
from sublet.leases import DataAccount, Lease, LeaseState
from sublet.memory.registry import MemoryRegistry

TOKEN_LIFE = timedelta(seconds=70)


@pytest.fixture
def pool_of(make_world):
    def make(num_data_accounts: int):
        made = make_world()
        made.make_account(num_data_accounts=num_data_accounts)
        made.make_bucket()
        made.watch()
        return made

    return make


def opened(world, name: str):
    """A lease to check a file, in the hands of whoever checks."""
    identity = world.cloud.buckets["acme-data"].metadata.identity
    return world.broker(REGISTRAR).open_for_verification(ACME, world.drop(name=name), identity)


def checked(world, name: str):
    """The same, handed back."""
    lease = opened(world, name)
    finished(world, lease)
    return lease


def finished(world, lease) -> Lease:
    ending = Ending(epoch=lease.epoch, bytes_read=1, is_success=True)
    return world.broker(REGISTRAR).finish(lease.lease, ending)


def training(world):
    """A container that has claimed its lease."""
    world.announce(world.drop())
    world.deliver()
    trainer = world.container()
    trainer.claim()
    return trainer


def account(world, email) -> DataAccount:
    return world.registry.get(DataAccount, DataAccount.key_of(email)).record


def states(world) -> list[tuple[bool, bool]]:
    """Of each account: whether it is kept lit, and whether the cloud shows it lit."""
    pool = world.all(DataAccount)
    return [(one.kept_lit, one.email not in world.cloud.disabled) for one in pool]


def state_of(world, lease) -> LeaseState:
    return world.registry.get(Lease, lease.lease).record.state


def opens(world, lease) -> int:
    return world.opens(lease.token.secret, lease.reads)


def writes_of(world) -> dict[tuple[str, str], int]:
    registry = world.registry
    while not isinstance(registry, MemoryRegistry):
        registry = registry._inner
    return {place: version for place, (_, version) in registry._rows.items()}


DARK, KEPT = (False, False), (True, True)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_file_is_registered_at_once_however_many_came_before_it(pool_of, size):
    """Each account went dark with its file, so that one more than there are accounts waited."""
    world = pool_of(size)
    for number in range(size + 3):
        found = world.announce(world.drop(name=f"data/{number}.jsonl"))
        assert found.state is DatasetState.READY
        world.advance(seconds=1)
    assert states(world).count(KEPT) == 1


def test_an_account_goes_dark_at_once_where_another_can_serve(pool_of):
    world = pool_of(2)
    lease = checked(world, "data/1.jsonl")
    assert states(world) == [DARK, DARK]
    assert (state_of(world, lease), opens(world, lease)) == (LeaseState.REVOKED, 401)


def test_an_account_is_kept_lit_until_another_can_serve(pool_of):
    world = pool_of(2)
    checked(world, "data/1.jsonl")
    world.advance(seconds=40)
    lease = checked(world, "data/2.jsonl")
    assert states(world) == [DARK, KEPT]
    assert (state_of(world, lease), opens(world, lease)) == (LeaseState.REVOKING, 200)
    world.advance(seconds=29)
    world.sweep.run()
    assert states(world) == [DARK, KEPT]
    world.advance(seconds=1)
    assert opens(world, lease) == 200
    world.sweep.run()
    assert states(world) == [DARK, DARK]
    assert (state_of(world, lease), opens(world, lease)) == (LeaseState.REVOKED, 401)


def test_an_account_is_kept_lit_no_longer_than_its_tokens_live(pool_of):
    world = pool_of(1)
    lease = checked(world, "data/1.jsonl")
    world.advance(seconds=69)
    world.sweep.run()
    assert states(world) == [KEPT]
    assert state_of(world, lease) is LeaseState.REVOKING
    world.advance(seconds=1)
    world.sweep.run()
    assert states(world) == [DARK]
    assert state_of(world, lease) is LeaseState.REVOKED
    before = writes_of(world)
    report = world.sweep.run()
    assert (writes_of(world), dict(report.repairs), report.failures) == (before, {}, [])


@pytest.mark.parametrize("after_s", [0, 270], ids=["its token is new", "its token is old"])
def test_a_trainings_end_darkens_its_account_even_if_no_other_can_serve(pool_of, after_s):
    world = pool_of(1)
    trainer = training(world)
    world.advance(seconds=after_s)
    trainer.finish()
    assert states(world) == [DARK]
    assert world.opens(trainer.tokens[0], world.lease_of().reads) == 401


def test_no_account_is_kept_lit_that_has_a_token_of_a_training(pool_of):
    """It lives for minutes; a check beside it that outlasts it by a moment lengthens nothing."""
    world = pool_of(1)
    trainer = training(world)
    lease = opened(world, "data/beside.jsonl")
    trainer.finish()
    assert states(world) == [(False, True)]
    finished(world, lease)
    assert states(world) == [DARK]
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED


def test_no_account_is_kept_lit_that_a_lease_used_whose_record_is_lost(pool_of):
    world = pool_of(1)
    lost, lease = (opened(world, f"data/{number}.jsonl") for number in range(2))
    world.registry.commit(world.registry.get(Lease, lost.lease).deleted())
    world.data_accounts.settle(lost.data_account)
    finished(world, lease)
    assert states(world) == [DARK] and opens(world, lost) == 401


def test_a_lease_that_its_account_does_not_know_lights_nothing(pool_of):
    """As after a backup was restored: the account is dark, and has forgotten who used it."""
    world = pool_of(1)
    lease = opened(world, "data/1.jsonl")
    stored = world.data_accounts.get(lease.data_account)
    world.registry.commit(stored.replaced_by(replace(stored.record, holders=())))
    world.data_accounts.settle(lease.data_account)
    finished(world, lease)
    assert states(world) == [DARK] and opens(world, lease) == 401


def test_an_always_on_account_is_not_kept_lit_when_it_is_always_on_no_more(make_world):
    world = make_world()
    world.make_account(num_data_accounts=1, always_on=True)
    world.make_bucket()
    lease = checked(world, "data/1.jsonl")
    assert states(world) == [(False, True)]
    AccountSettings(world.registry, world.clock).change_own(ACME, always_on=False)
    world.data_accounts.settle(lease.data_account)
    assert states(world) == [DARK] and opens(world, lease) == 401


def fail(world, lease) -> None:
    """Its end could not be proved, and a person is called."""
    stored = world.registry.get(Lease, lease.lease)
    world.registry.commit(stored.replaced_by(replace(stored.record, state=LeaseState.FAILED)))


def test_an_account_with_a_lease_that_failed_is_no_other_that_could_serve(pool_of):
    world = pool_of(2)
    fail(world, checked(world, "data/1.jsonl"))
    world.advance(minutes=5)
    checked(world, "data/2.jsonl")
    assert states(world) == [DARK, KEPT]


def test_an_account_with_a_lease_that_failed_is_kept_lit_for_nobody(pool_of):
    world = pool_of(1)
    first, second = (opened(world, f"data/{number}.jsonl") for number in range(2))
    finished(world, first)
    fail(world, first)
    finished(world, second)
    assert states(world) == [DARK]


def test_a_token_of_a_proved_end_is_never_revived(pool_of):
    """What is kept lit no more goes dark as recorded, and rests before it serves again."""
    world = pool_of(2)
    first = checked(world, "data/1.jsonl")
    world.advance(seconds=40)
    second = checked(world, "data/2.jsonl")
    world.advance(seconds=30)
    world.sweep.run()
    assert (state_of(world, second), opens(world, second)) == (LeaseState.REVOKED, 401)
    leases = [first, second]
    for number in range(3, 12):
        leases.append(checked(world, f"data/{number}.jsonl"))
        world.advance(seconds=7)
        world.sweep.run()
        proved = [lease for lease in leases if state_of(world, lease) is LeaseState.REVOKED]
        assert {opens(world, lease) for lease in proved} == {401}
        assert len({lease.data_account for lease in proved}) == 2


def test_what_is_kept_lit_in_vain_is_seen_by_the_sweep_though_no_lease_is_left(pool_of):
    world = pool_of(1)
    lease = checked(world, "data/1.jsonl")
    ended = world.registry.get(Lease, lease.lease)
    world.registry.commit(ended.replaced_by(replace(ended.record, state=LeaseState.REVOKED)))
    unsettled = world.broker(REVOKER).unsettled
    assert unsettled(ACME) == []
    world.clock.advance(TOKEN_LIFE)
    assert unsettled(ACME) == [lease.data_account]
    world.data_accounts.settle(lease.data_account)
    assert (states(world), unsettled(ACME)) == ([DARK], [])


def test_a_crash_before_the_switch_leaves_an_account_that_the_sweep_darkens(pool_of):
    world = pool_of(2)
    checked(world, "data/1.jsonl")
    world.advance(seconds=40)
    lease = checked(world, "data/2.jsonl")
    world.advance(seconds=30)
    switch = world.cloud.set_enabled
    world.cloud.set_enabled = lambda *_, **__: (_ for _ in ()).throw(TryAgain("it died"))
    world.sweep.run()
    assert states(world) == [DARK, (False, True)]
    assert (state_of(world, lease), opens(world, lease)) == (LeaseState.REVOKING, 200)
    world.cloud.set_enabled = switch
    assert world.broker(REVOKER).unsettled(ACME) == [lease.data_account]
    world.advance(seconds=10)
    world.sweep.run()
    assert states(world) == [DARK, DARK]
    assert (state_of(world, lease), opens(world, lease)) == (LeaseState.REVOKED, 401)


def test_a_lease_that_comes_while_its_account_is_found_kept_in_vain_keeps_it(pool_of):
    """Whoever stood still between looking at the pool and his commit has lost the race."""
    world = pool_of(1)
    email = checked(world, "data/1.jsonl").data_account
    world.clock.advance(TOKEN_LIFE)
    needed, came = world.data_accounts._is_needed, []

    def stood_still(seen):
        found = needed(seen)
        world.data_accounts._is_needed = needed
        came.append(opened(world, "data/2.jsonl"))
        return found

    world.data_accounts._is_needed = stood_still
    world.data_accounts.settle(email)
    assert account(world, email).holders == (came[0].lease,)
    assert opens(world, came[0]) == 200


def test_a_lease_that_comes_when_its_account_is_kept_no_more_takes_another(pool_of):
    """Its account went dark after it was chosen: to light it would revive tokens."""
    world = pool_of(2)
    checked(world, "data/1.jsonl")
    world.advance(seconds=40)
    second = checked(world, "data/2.jsonl")
    world.advance(seconds=30)
    choose = world.data_accounts.choose

    def chosen_early(name):
        found = choose(name)
        world.data_accounts.choose = choose
        world.sweep.run()
        return found

    world.data_accounts.choose = chosen_early
    third = opened(world, "data/3.jsonl")
    assert third.data_account != second.data_account
    assert (opens(world, second), opens(world, third)) == (401, 200)


@pytest.mark.parametrize("is_felt", [False, True])
def test_whoever_does_not_hear_whether_an_account_went_dark_proves_nothing_and_blames_nobody(
    pool_of, is_felt
):
    """It may be lit for somebody else by now, and the 401 come from a switch that is felt late."""
    world = pool_of(2)
    lease = opened(world, "data/1.jsonl")
    switch = world.cloud.set_enabled

    def unheard(email, *, enabled):
        if is_felt:
            switch(email, enabled=enabled)
        raise TryAgain("no answer")

    world.cloud.set_enabled = unheard
    finished(world, lease)
    assert opens(world, lease) == (401 if is_felt else 200)
    ended = world.registry.get(Lease, lease.lease).record
    assert (ended.state, ended.num_probes) == (LeaseState.REVOKING, 0)
    world.cloud.set_enabled = switch
    world.sweep.run()
    assert state_of(world, lease) is LeaseState.REVOKED
