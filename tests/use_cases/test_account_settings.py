"""What an account chooses for itself takes effect, and what it may not choose it cannot."""

from datetime import timedelta

import pytest
from memory_world import ACME

from sublet.account_settings import AccountSettings
from sublet.accounts import Account
from sublet.delivery import SignedReceipt
from sublet.errors import AccessDenied, NotFound, TryAgain
from sublet.leases import DataAccount, LeaseState
from sublet.names import AccountName
from sublet.statements import parse_statement


@pytest.fixture
def settings(world):
    return AccountSettings(world.registry, world.clock)


@pytest.fixture
def trainer(world):
    """A training that has just claimed its lease; what it reads is world.version."""
    world.version = world.drop()
    world.announce(world.version)
    world.advance(minutes=2)
    world.deliver()
    container = world.container()
    container.claim()
    return container


def lit(world) -> set[str]:
    return {account.email for account in world.all(DataAccount)} - world.cloud.disabled


def test_an_account_that_became_always_on_is_lit_from_the_next_sweep_on(world, settings):
    settings.change_own(ACME, always_on=True)
    world.advance(hours=1)
    world.sweep.run()
    assert len(lit(world)) == 2
    settings.change_own(ACME, always_on=False)
    world.advance(hours=1)
    world.sweep.run()
    assert lit(world) == set()


def test_becoming_always_on_revives_no_token_of_a_lease_that_has_ended(world, settings, trainer):
    """Enabling an account makes its old tokens open again: it stays dark until they are dead."""
    trainer.finish()
    world.deliver()
    (token,) = trainer.tokens
    assert world.opens(token, world.version) == 401
    used = world.lease_of().data_account
    settings.change_own(ACME, always_on=True)
    while world.clock.now() <= world.lease_of().dies_at:
        world.data_accounts.settle(used)
        assert world.opens(token, world.version) == 401
        assert used in world.data_accounts._switch.disabled
        world.advance(seconds=30)
    world.data_accounts.settle(used)
    assert used in lit(world) and world.opens(token, world.version) == 401


def test_no_lease_takes_an_always_on_account_that_is_not_lit_yet(make_world):
    world = make_world()
    world.make_account(num_data_accounts=1)
    world.make_bucket()
    world.watch()
    world.put_to_rest(minutes=1)
    AccountSettings(world.registry, world.clock).change_own(ACME, always_on=True)
    with pytest.raises(TryAgain, match="rests until its last token has died"):
        world.announce(world.drop())


def test_the_receipt_states_the_bound_that_held_when_the_access_ended(world, settings, trainer):
    """Not the one that the account chose later."""
    settings.change_own(ACME, always_on=True)
    trainer.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    settings.change_own(ACME, always_on=False)
    world.advance(minutes=6)
    world.sweep.run()
    lease = world.lease_of()
    assert (lease.state, lease.always_on) == (LeaseState.REVOKED, True)
    bound = signed_bounds(world)["nothing is dead"]
    assert "never disabled" in bound["because"]


def test_the_receipt_of_an_access_that_ended_dark_says_so_whatever_was_chosen_since(
    world, settings, trainer
):
    trainer.finish()
    settings.change_own(ACME, always_on=True)
    world.deliver()
    assert "is disabled at once" in signed_bounds(world)["nothing is dead"]["because"]


def signed_bounds(world) -> dict[str, dict[str, str]]:
    content = parse_statement(world.the(SignedReceipt).text).content
    return {bound["when"]: bound for bound in content["worstCases"]}


def test_an_account_may_ask_to_be_challenged_and_only_the_operator_lets_it_off(world, settings):
    first = settings.change_own(ACME, challenge_required=True)
    assert first.is_challenged
    again = settings.change_own(ACME, challenge_required=True)
    assert again.challenge_for("acme-data") == first.challenge_for("acme-data")
    with pytest.raises(AccessDenied, match="only the operator"):
        settings.change_own(ACME, challenge_required=False)
    assert world.registry.get(Account, ACME).record.is_challenged
    assert not settings.change(ACME, challenge_required=False).is_challenged
    later = settings.change(ACME, challenge_required=True)
    assert later.challenge_for("acme-data") != first.challenge_for("acme-data")


def test_a_change_that_meets_another_one_is_made_on_top_of_it(world, settings):
    commit, met = world.registry.commit, []

    def meets_another(*writes, **more):
        if not met:
            met.append(AccountSettings(world.registry, world.clock))
            met[0].change(ACME, challenge_required=True)
        return commit(*writes, **more)

    world.registry.commit = meets_another
    changed = settings.change_own(ACME, always_on=True)
    assert changed.always_on and changed.is_challenged


def test_what_changes_nothing_is_no_change(world, settings):
    world.advance(minutes=1)
    assert settings.change_own(ACME, always_on=False).updated_at is None
    changed = settings.change_own(ACME, always_on=True)
    world.advance(minutes=1)
    assert settings.change_own(ACME, always_on=True).updated_at == changed.updated_at
    with pytest.raises(NotFound):
        settings.change(AccountName.of("nobody"), always_on=True)
    assert world.clock.now() - changed.updated_at == timedelta(minutes=1)
