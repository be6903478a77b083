"""The life of a lease: who may hold it, how it is fenced, and the only ways in which it ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sublet.buckets import BucketIdentity
from sublet.errors import Conflict, FailedPrecondition, TryAgain
from sublet.leases import (
    DataAccount,
    Holder,
    Lease,
    LeaseState,
    MintedToken,
    Probe,
    Purpose,
    choose_data_account,
    rests_whole,
)
from sublet.names import AccountName, Email, Generation, LeaseName, ObjectVersion

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ACME = AccountName.of("acme")
TRAINER = Email("trainer@p.iam.gserviceaccount.com")
FIRST = Holder(identity=TRAINER, execution="e1")
SECOND = Holder(identity=TRAINER, execution="e2")


def lease(**changes: object) -> Lease:
    made = Lease(
        name=LeaseName.of(ACME, "ls-1"),
        purpose=Purpose.TRAINING,
        job=None,
        reads=ObjectVersion(bucket="acme-data", object="a.jsonl", generation=Generation(1)),
        writes=None,
        bucket_identity=BucketIdentity(
            bucket="acme-data", project_number=1, created_at=NOW, location="US"
        ),
        data_account=Email("data-1@p.iam.gserviceaccount.com"),
        created_at=NOW,
        expires_at=NOW + timedelta(hours=12),
    )
    return replace(made, **changes)


def claimed(holder: Holder = FIRST, at: datetime = NOW) -> Lease:
    return lease().claimed(holder, now=at, lost_after=MINUTE)


def refused(at: datetime = NOW) -> Probe:
    return Probe(at=at, is_refused=True, answers="read: 401")


def alive(at: datetime = NOW) -> Probe:
    return Probe(at=at, is_refused=False, answers="read: 200")


def test_only_one_of_two_executions_gets_the_lease():
    held = claimed()
    with pytest.raises(Conflict, match="e1"):
        held.claimed(SECOND, now=NOW + MINUTE, lost_after=MINUTE)


def test_a_later_attempt_of_the_same_execution_takes_over_at_once():
    retried = claimed().claimed(replace(FIRST, attempt=1), now=NOW, lost_after=MINUTE)
    assert (retried.epoch, retried.holder.attempt) == (2, 1)


def test_an_earlier_attempt_does_not():
    held = claimed(replace(FIRST, attempt=1))
    with pytest.raises(Conflict):
        held.claimed(FIRST, now=NOW, lost_after=MINUTE)


def test_another_execution_takes_over_from_a_holder_that_fell_silent():
    later = NOW + MINUTE + timedelta(seconds=1)
    assert claimed().claimed(SECOND, now=later, lost_after=MINUTE).holder == SECOND


def test_who_was_fenced_cannot_renew():
    held = claimed()
    retaken = held.claimed(replace(FIRST, attempt=1), now=NOW, lost_after=MINUTE)
    with pytest.raises(Conflict, match="stop"):
        retaken.renewed(held.epoch, bytes_read=1, now=NOW)


def test_an_ended_lease_cannot_be_claimed_or_renewed():
    ended = claimed().revoking(now=NOW, because="it is over")
    with pytest.raises(FailedPrecondition, match="it is over"):
        ended.claimed(FIRST, now=NOW, lost_after=MINUTE)
    with pytest.raises(Conflict):
        ended.renewed(1, bytes_read=0, now=NOW)


def test_an_expired_lease_cannot_be_renewed_even_if_nobody_ended_it():
    held = claimed()
    with pytest.raises(FailedPrecondition, match="expired"):
        held.renewed(held.epoch, bytes_read=0, now=held.expires_at)


def test_bytes_of_every_holder_add_up():
    first = claimed().renewed(1, bytes_read=100, now=NOW)
    second = first.claimed(replace(FIRST, attempt=1), now=NOW, lost_after=MINUTE)
    assert second.renewed(2, bytes_read=50, now=NOW).bytes_read == 150


def test_ending_twice_changes_nothing():
    once = claimed().revoking(now=NOW, because="first")
    assert once.revoking(now=NOW + MINUTE, because="second") == once


def test_only_a_refused_probe_ends_a_lease_well():
    ended = claimed().revoking(now=NOW, because="x").probed(refused(), counts=True, max_probes=6)
    assert (ended.state, ended.ended_at) == (LeaseState.REVOKED, NOW)


def test_six_tries_that_fail_call_a_person_and_keep_the_lease():
    tried = claimed().revoking(now=NOW, because="x")
    for number in range(6):
        assert tried.state is LeaseState.REVOKING
        tried = tried.probed(alive(NOW + number * MINUTE), counts=True, max_probes=6)
    assert (tried.state, tried.num_probes) == (LeaseState.FAILED, 6)


def test_a_token_that_a_neighbours_lease_keeps_alive_blames_nobody():
    tried = claimed().revoking(now=NOW, because="x")
    for _ in range(100):
        tried = tried.probed(alive(), counts=False, max_probes=6)
    assert (tried.state, tried.num_probes) == (LeaseState.REVOKING, 0)


def test_the_token_is_forgotten_when_its_end_is_proved_and_not_before():
    token = MintedToken(sha256="ab", minted_at=NOW, dies_at=NOW + 5 * MINUTE)
    tried = claimed().minted(token, sealed="sealed").revoking(now=NOW, because="x")
    tried = tried.probed(alive(), counts=True, max_probes=6)
    assert tried.sealed_token == "sealed"
    assert tried.probed(refused(), counts=True, max_probes=6).sealed_token == ""


def test_the_latest_end_of_a_token_is_written_before_the_token_exists():
    before = claimed().about_to_mint(dies_at=NOW + 5 * MINUTE)
    assert (before.dies_at, before.num_tokens, before.tokens) == (NOW + 5 * MINUTE, 1, ())
    assert before.about_to_mint(dies_at=NOW + MINUTE).dies_at == NOW + 5 * MINUTE


def account(number: int, **changes: object) -> DataAccount:
    made = DataAccount(email=Email(f"data-{number}@p"), account=ACME)
    return replace(made, **changes)


HELD = (LeaseName.of(ACME, "ls-x"),)


def test_a_dark_account_is_chosen_before_a_shared_one_while_another_is_left():
    shared = account(1, holders=HELD)
    assert choose_data_account([shared, account(2), account(3)], NOW) == account(2)


def test_the_last_dark_account_is_kept_for_who_comes_when_all_others_rest():
    shared, resting = account(1, holders=HELD), account(2, tokens_die_at=NOW + MINUTE)
    assert choose_data_account([shared, resting, account(3)], NOW) == shared
    assert choose_data_account([resting, account(3)], NOW) == account(3)


def test_a_burst_keeps_one_account_lit_so_that_the_others_can_rest():
    busy, idle = account(2, holders=(*HELD, LeaseName.of(ACME, "ls-y"))), account(1, holders=HELD)
    assert choose_data_account([idle, busy], NOW) == busy


def test_an_account_is_never_lit_while_that_would_revive_a_token():
    hot = account(1, tokens_die_at=NOW + MINUTE)
    with pytest.raises(TryAgain, match="until its last token has died"):
        choose_data_account([hot], NOW)
    assert choose_data_account([hot], NOW + MINUTE) == hot


def test_a_lit_account_is_shared_rather_than_a_token_revived():
    lit = account(1, holders=(LeaseName.of(ACME, "ls-x"),), tokens_die_at=NOW + MINUTE)
    hot = account(2, tokens_die_at=NOW + MINUTE)
    assert choose_data_account([lit, hot], NOW) == lit


def test_an_account_that_is_kept_lit_is_shared_like_one_in_use_and_kept_no_longer():
    kept = account(1, kept_lit=True, tokens_die_at=NOW + MINUTE)
    hot = account(2, tokens_die_at=NOW + MINUTE)
    assert kept.is_lit(NOW) and choose_data_account([hot, kept], NOW) == kept
    taken = kept.taken_by(*HELD)
    assert (taken.kept_lit, taken.holders) == (False, HELD)
    assert not taken.left_by(lease(name=HELD[0])).is_lit(NOW)


def test_an_account_that_is_kept_lit_may_become_always_on_at_once_and_is_not_kept_after():
    kept = account(1, kept_lit=True, tokens_die_at=NOW + MINUTE)
    always_on = kept.kept_on(always_on=True, now=NOW)
    assert always_on.stays_lit(NOW)
    assert not always_on.kept_on(always_on=False, now=NOW).is_lit(NOW)


def test_a_pool_rests_whole_only_if_no_account_of_it_could_serve():
    hot, dark = account(1, tokens_die_at=NOW + MINUTE), account(2)
    kept = account(3, kept_lit=True, tokens_die_at=NOW + MINUTE)
    assert rests_whole([hot], NOW) and not rests_whole([hot], NOW + MINUTE)
    assert not rests_whole([hot, dark], NOW) and not rests_whole([hot, kept], NOW)


def test_an_account_without_data_accounts_says_who_can_help():
    with pytest.raises(FailedPrecondition, match="operator"):
        choose_data_account([], NOW)


def test_an_account_remembers_until_when_an_ended_leases_tokens_live():
    held = claimed().about_to_mint(dies_at=NOW + 5 * MINUTE)
    left = account(1, holders=(held.name,)).left_by(held)
    assert (left.holders, left.tokens_die_at) == ((), NOW + 5 * MINUTE)
