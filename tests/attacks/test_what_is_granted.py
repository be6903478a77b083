"""Attacks on what a policy seems to say."""

from datetime import timedelta

import pytest
import requests
from attacks.catalogue import attack
from memory_world import VERIFIER, VIEWER

from sublet.datasets import DatasetState
from sublet.findings import Verdict

READER = "projects/customer-project/roles/reader"
GET, DELETE = "storage.objects.get", "storage.objects.delete"


def regrant(world, role: str, condition: str = "") -> None:
    """The same grants, but for the role and condition of the account's own."""
    world.cloud.ungrant("acme-data", VIEWER, f"serviceAccount:{world.acme.email}")
    world.cloud.grant("acme-data", role, f"serviceAccount:{world.acme.email}", condition)


def before(world, **time: float) -> str:
    at = world.clock.now() + timedelta(**time)
    return f'request.time < timestamp("{at:%Y-%m-%dT%H:%M:%SZ}")'


@attack(
    7,
    "a grant that is true now and false before the job ends, or false now and true later",
    stopped_by="a condition must hold at every instant until the job could end; one that "
    "cannot be read is not true",
)
def test_time_bomb_grant(world):
    version = world.drop()
    expiring, opening = before(world, hours=1), f"!({before(world, hours=1)})"
    unreadable = "resource.matchTag('a/b', 'c')"
    for condition in (expiring, opening, f"({opening}) || {expiring} && false", unreadable):
        regrant(world, VIEWER, condition)
        assert world.refusals(world.acme, version) == {"account_may_read"}, condition
        world.cloud.change_policy(
            "acme-data", lambda bindings: [b for b in bindings if not b.get("condition")]
        )

    world.cloud.grant(
        "acme-data", VIEWER, f"serviceAccount:{world.acme.email}", before(world, hours=13)
    )
    assert world.refusals(world.acme, version) == set()


@attack(
    14,
    "the policy is read without its conditions, so that a grant which is never true looks like one",
    stopped_by="version 3 is asked for, always; a policy of another version is refused",
)
def test_policy_downgrade(world):
    version = world.drop()
    regrant(world, VIEWER, 'resource.name.startsWith("projects/_/buckets/acme-data/objects/x/")')
    url = f"{world.cloud.endpoints.storage}/storage/v1/b/acme-data/iam"
    seen = requests.get(url, params={"optionsRequestedPolicyVersion": 1}, timeout=10).json()
    assert "startsWith" not in str(seen)
    assert world.refusals(world.acme, version) == {"account_may_read"}

    regrant(world, VIEWER, 'resource.name.startsWith("projects/_/buckets/acme-data/objects/data/")')
    assert world.refusals(world.acme, version) == set()


@attack(
    15,
    "a custom role is edited after the verification",
    stopped_by="what a custom role carries is read from IAM at each verification, and counts "
    "as not visible where we may not; a token is cut down to the object whatever its account "
    "may; what was taken away is missing at the next read",
)
def test_role_drift(world):
    edit = world._running.do

    def carry(*permissions: str) -> None:
        edit(lambda cloud: cloud.iam.roles.put(READER, permissions))

    version, other = world.drop(), world.drop(name="data/other.jsonl")
    carry(GET)
    for email in (world.acme.email, *world.acme.data_accounts):
        world.cloud.ungrant("acme-data", VIEWER, f"serviceAccount:{email}")
        world.cloud.grant("acme-data", READER, f"serviceAccount:{email}")
    assert "account_may_read" in world.refusals(world.acme, version)
    world._running.allow("projects/customer-project", "roles/iam.roleViewer", VERIFIER)

    assert world.announce(version).state is DatasetState.READY
    world.deliver()
    trainer = world.container()
    trainer.claim()
    (token,) = trainer.tokens
    carry(GET, DELETE)
    assert world.opens(token, version) == 200
    assert world.cloud.status_of(token, DELETE, version.bucket, version.object) == 403
    assert world.opens(token, other) == 403
    carry("storage.objects.list")
    assert world.opens(token, version) == 403
    assert "account_may_read" in world.refusals(world.acme, version)


@attack(
    16,
    "the owner grants more than is needed, and the job uses it",
    stopped_by="a token is cut down to reading the object and creating under the prefix; the "
    "report names the wider role",
)
def test_over_grant(world):
    version = world.drop()
    narrow, _ = world.verification.check_access(world.acme, version, None)
    for email in world.acme.data_accounts:
        world.cloud.grant("acme-data", "roles/storage.objectAdmin", f"serviceAccount:{email}")
    wide, _ = world.verification.check_access(world.acme, version, None)

    def flagged(report) -> set:
        return {f.verdict for f in report.findings if f.fact == "grants_are_narrow"}

    assert (flagged(narrow), flagged(wide)) == (set(), {Verdict.REFUTED})
    world.announce(version)
    world.deliver()
    trainer = world.container()
    trainer.claim()
    (token,) = trainer.tokens
    bucket, name = version.bucket, version.object
    for verb in ("delete", "create", "list"):
        assert world.cloud.status_of(token, f"storage.objects.{verb}", bucket, name) == 403, verb

    assert world.opens(token, version) == 200


@pytest.mark.parametrize("everyone", ["allUsers", "allAuthenticatedUsers"])
def test_a_public_folder_is_a_public_bucket_as_far_as_the_object_lies_in_it(make_world, everyone):
    """Over the memory twin: the local cloud has no managed folders."""
    from sublet.buckets import Binding, FolderPolicy, Policy

    world = make_world()
    account = world.make_account()
    world.make_bucket()
    version = world.drop()
    policy = Policy(version=3, etag="e", bindings=(Binding(role=VIEWER, members=(everyone,)),))
    for folder, is_refused in (("data/", True), ("other/", False)):
        world.cloud.buckets["acme-data"].folders = [FolderPolicy(folder=folder, policy=policy)]
        report, _ = world.verification.check_access(account, version, None)
        assert ("is_not_public" in {f.fact for f in report.policy_refusals()}) is is_refused
