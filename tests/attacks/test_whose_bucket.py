"""Attacks on the question whose a bucket is."""

from dataclasses import replace

import pytest
from attacks.catalogue import attack
from memory_world import VIEWER

from sublet.datasets import Dataset, DatasetState
from sublet.errors import AccessDenied
from sublet.jobs import Job
from sublet.leases import Lease, LeaseState

CREATE = "storage.objects.create"


@attack(
    1,
    "a tenant names another tenant's bucket, which trusts the platform (confused deputy)",
    stopped_by="a pool of service accounts for each tenant; the tenant's own email must be an "
    "exact member of the policy; what is not a tenant's to know looks like a bucket that is "
    "not there",
)
def test_confused_deputy(world, evil):
    version = world.drop()
    world.watch_for(evil, "acme-data")
    theft = world.announce(version, evil.name)
    assert (theft.state, theft.status.code) == (DatasetState.UPLOADING, "PERMISSION_DENIED")
    assert world.all(Lease) == [] and world.all(Job) == []
    missing, _ = world.verification.check_access(evil, replace(version, bucket="no-such"), None)
    theirs, _ = world.verification.check_access(evil, version, None)
    assert str(missing.findings).replace("no-such", "acme-data") == str(theirs.findings)
    declares_it = replace(evil, project_numbers=world.acme.project_numbers)
    assert world.refusals(declares_it, version) >= {"account_may_read", "data_account_may_read"}

    assert world.announce(version).state is DatasetState.READY


@attack(
    2,
    "a tenant passes because the owner granted a group, a domain or everybody who is signed in",
    stopped_by="only the exact service account proves a tenant; everything else can at most be "
    "a reason to refuse",
)
def test_somebody_elses_group(world, evil):
    version = world.drop()
    evil = replace(evil, project_numbers=world.acme.project_numbers)
    members = (
        f"group:{evil.email}",
        f"user:{evil.email}",
        "domain:platform.iam.gserviceaccount.com",
        "allAuthenticatedUsers",
        f"deleted:serviceAccount:{evil.email}?uid=123456789012345678901",
        "projectViewer:platform",
        "principalSet://iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/*",
    )
    for member in members:
        world.cloud.grant("acme-data", VIEWER, member)
        assert "account_may_read" in world.refusals(evil, version), member
        world.cloud.ungrant("acme-data", VIEWER, member)

    world.grant_all("acme-data", evil)
    assert world.refusals(evil, version) == set()


@attack(
    3,
    "a public bucket is registered as one's own, to train on what others can change",
    stopped_by="allUsers or allAuthenticatedUsers in any binding refuses, on a managed folder too",
    stays_open="a grant to allUsers on the project is not visible from the bucket; the report "
    "says that inherited grants are unchecked",
)
def test_public_bucket(world):
    version = world.drop()
    for everyone in ("allUsers", "allAuthenticatedUsers"):
        world.cloud.grant("acme-data", VIEWER, everyone)
        assert world.refusals(world.acme, version) == {"is_not_public"}
        world.cloud.ungrant("acme-data", VIEWER, everyone)

    assert world.announce(version).state is DatasetState.READY


@attack(
    4,
    "a bucket is deleted, and its name taken by somebody who grants us the same (bucket sniping)",
    stopped_by="project number, location and time of creation are pinned, and compared at the "
    "start, before each token and at the end; the datasets of the first bucket are quarantined",
)
def test_bucket_sniping(world):
    first, kept = world.drop(), world.make_bucket("acme-kept")
    world.watch("acme-kept")
    dataset = world.announce(first)
    world.deliver()
    world.cloud.remove_bucket("acme-data")
    world.make_bucket("acme-data")
    again = world.drop()
    with pytest.raises(AccessDenied, match="not the bucket that was verified"):
        world.container().claim()
    assert world.lease_of().tokens == ()
    aside = world.registry.get(Dataset, dataset.name).record
    assert aside.state is DatasetState.UPLOADING and "quarantined" in aside.status.message
    assert "another bucket of the same name" in world.announce(again).status.message

    world.advance(minutes=2)
    version = world.drop(bucket=kept)
    assert world.announce(version).state is DatasetState.READY
    world.deliver()
    assert world.container("execution-2").claim().reads == version


@attack(
    5,
    "somebody takes the names that our buckets would have (bucket squatting)",
    stopped_by="sublet has no bucket: models go into the bucket that the dataset is in, which "
    "was verified, and tokens are cut down to it",
)
def test_bucket_squatting(world, trainer):
    squatted = [f"{name}-{use}" for name in ("acme", "sublet") for use in ("staging", "output")]
    for name in squatted:
        world.cloud.make_bucket(name)
        for email in world.acme.data_accounts:
            world.cloud.grant(name, "roles/storage.objectAdmin", f"serviceAccount:{email}")
    (token,), output = trainer.tokens, world.assignment.training.writes
    for name in squatted:
        assert world.cloud.status_of(token, CREATE, name, f"{output.prefix}model") == 403
    assert output.bucket == world.version.bucket

    assert world.cloud.status_of(token, CREATE, output.bucket, f"{output.prefix}model") == 200
    trainer.finish()
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED
    assert all(not list(world.cloud.bucket(name).list_blobs()) for name in squatted)
