"""Whose bucket, and whose prefix: pinned with the first dataset, and looked at until the last."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sublet.account_settings import AccountSettings
from sublet.accounts import Account
from sublet.buckets import PinnedBucket
from sublet.datasets import Dataset, DatasetState
from sublet.errors import AccessDenied, FailedPrecondition
from sublet.jobs import Job, JobState
from sublet.leases import Lease, LeaseState, Purpose
from sublet.names import AccountName, DatasetName
from sublet.registration import DatasetRequest
from sublet.verification import Verification, VerificationTerms

RIVAL = AccountName.of("rival")


@pytest.fixture
def trainer(world):
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    container.claim()
    return container


@pytest.fixture
def rival(world) -> Account:
    """Another account that the bucket's owner granted as well: two teams of one company."""
    account = world.make_account(RIVAL)
    for email in (account.email, *account.data_accounts):
        world.cloud.grant("acme-data", "roles/storage.objectViewer", f"serviceAccount:{email}")
    for email in account.data_accounts:
        world.cloud.grant("acme-data", "roles/storage.objectCreator", f"serviceAccount:{email}")
    return account


def register(world, name: str, account: AccountName = RIVAL) -> Dataset:
    world.advance(minutes=2)
    request = DatasetRequest(
        name=DatasetName.of(account, "d"),
        bucket="acme-data",
        object=name,
        display_name="",
        created_by="me",
    )
    return world.registration.create(request)


def test_a_prefix_is_the_account_s_that_proved_it_first(world, rival):
    world.announce(world.drop())
    world.drop(name="data/more/theirs.jsonl")
    world.drop(name="rival/own.jsonl")
    with pytest.raises(AccessDenied, match="'data/' is another account's"):
        register(world, "data/more/theirs.jsonl")
    assert register(world, "rival/own.jsonl").state is DatasetState.READY
    prefixes = {pin.account: pin.prefixes for pin in world.all(PinnedBucket)}
    assert prefixes[RIVAL] == ("rival/",)


def test_the_owner_of_the_bucket_can_give_a_prefix_to_another_account(world, rival):
    world.announce(world.drop())
    with pytest.raises(AccessDenied, match="run: sublet update account --require-challenge"):
        register(world, "data/train.jsonl")
    settings = AccountSettings(world.registry, world.clock)
    challenged = settings.change_own(RIVAL, challenge_required=True)
    with pytest.raises(AccessDenied, match="sublet-challenge"):
        register(world, "data/train.jsonl")
    bucket = world.cloud.buckets["acme-data"]
    label = {"sublet-challenge": challenged.challenge_for("acme-data")}
    bucket.metadata = replace(bucket.metadata, labels=label)
    assert register(world, "data/train.jsonl").state is DatasetState.READY
    prefixes = {pin.account.id: pin.prefixes for pin in world.all(PinnedBucket)}
    assert prefixes == {"acme": (), "rival": ("data/",)}


def test_a_bucket_made_again_quarantines_its_datasets_when_it_is_seen(world):
    first = world.announce(world.drop())
    world.advance(minutes=5)
    world.make_bucket()
    refused = world.announce(world.drop(name="data/later.jsonl"))
    assert "another bucket of the same name" in refused.status.message
    aside = world.registry.get(Dataset, first.name).record
    assert (aside.state, aside.status.code) == (DatasetState.UPLOADING, "FAILED_PRECONDITION")
    assert "quarantined" in aside.status.message and "created_at was" in aside.status.message
    with pytest.raises(FailedPrecondition, match="quarantined"):
        world.training_runs._usable_dataset(first.name)


@pytest.mark.parametrize(
    ("part", "other"),
    [("project_number", 43), ("location", "EU"), ("created_at", datetime(2020, 1, 1, tzinfo=UTC))],
)
def test_a_bucket_that_differs_in_any_part_of_its_identity_is_another_one(
    world, trainer, part, other
):
    """Before each token, and at the end: by then it may be somebody else's."""
    bucket = world.cloud.buckets["acme-data"]
    bucket.metadata = replace(bucket.metadata, **{part: other})
    with pytest.raises(AccessDenied, match=f"not the bucket that was verified: {part} was"):
        trainer.beat(wants_token=True)
    trainer.finish()
    assert f"{part} was" in world.the(Job).status.message
    assert world.the(Job).state is JobState.FAILED


def test_no_container_is_started_for_a_bucket_that_was_replaced_before(world):
    world.announce(world.drop())
    world.advance(minutes=1)
    world.make_bucket()
    world.deliver()
    assert world.runner.running() == []
    assert [lease.purpose for lease in world.all(Lease)] == [Purpose.VERIFICATION]


def test_a_dataset_of_another_bucket_stays_in_use(world):
    first = world.announce(world.drop())
    world.make_bucket("acme-kept")
    world.watch("acme-kept")
    world.advance(minutes=5)
    kept = world.announce(world.drop(bucket="acme-kept"))
    world.make_bucket()
    world.announce(world.drop(name="data/later.jsonl"))
    states = {d.name: d.state for d in world.all(Dataset)}
    assert (states[kept.name], states[first.name]) == (DatasetState.READY, DatasetState.UPLOADING)


def test_a_bucket_that_was_replaced_while_the_job_ran_fails_the_job(world, trainer):
    world.advance(minutes=1)
    world.make_bucket()
    trainer.finish()
    job = world.the(Job)
    assert (job.state, job.status.code) == (JobState.FAILED, "FAILED_PRECONDITION")
    assert "was replaced while the job ran" in job.status.message
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED


def test_an_owner_who_hides_the_bucket_at_the_end_does_not_fail_the_job(world, trainer):
    """What cannot be seen is not known to have changed; the adapter was written under the lease."""
    from sublet.buckets import NotVisible

    world.cloud.metadata = lambda bucket: NotVisible("no longer granted")
    trainer.finish()
    assert world.the(Job).state is JobState.COMPLETED


class Counting:
    """A port, and how often each of its methods was called."""

    def __init__(self, inner) -> None:
        self._inner, self.calls = inner, Counter()

    def __getattr__(self, name):
        found = getattr(self._inner, name)

        def counted(*arguments, **more):
            self.calls[name] += 1
            return found(*arguments, **more)

        return counted


def test_a_bucket_that_is_not_ones_own_takes_as_long_as_one_that_is_not_there(world):
    """Counted in calls, since a clock would tell of the machine: no call is made or left out."""
    stranger = replace(world.make_account(RIVAL), project_numbers=())
    version = world.drop()
    world.cloud.grant("acme-data", "projects/p/roles/reader", "serviceAccount:x@p.example")
    world.announce(version)
    counted, told = [], []
    for bucket in ("acme-data", "not-there"):
        inspector, registry = Counting(world.cloud), Counting(world.registry)
        verification = Verification(
            registry=registry,
            inspector=inspector,
            broker=None,
            open_objects=None,
            clock=world.clock,
            verifier=world.verification._verifier,
            terms=VerificationTerms(),
        )
        examined = verification.examine(stranger, replace(version, bucket=bucket), None)
        counted.append((inspector.calls, registry.calls))
        told.append(str(examined.status()).replace(bucket, "B"))
    assert counted[0] == counted[1] and sum(counted[0][0].values()) == 3
    assert told[0] == told[1] and "PERMISSION_DENIED" in told[0]
