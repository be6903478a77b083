"""Attacks on what a policy seems to say."""

from dataclasses import replace
from datetime import timedelta

import pytest
import requests
from attacks.catalogue import attack
from enforced_world import LOOKS
from memory_world import CREATOR, VERIFIER, VIEWER, rows

from sublet.datasets import DatasetState
from sublet.findings import Verdict
from sublet.leases import LeaseState

READER = "projects/customer-project/roles/reader"
GET, DELETE = "storage.objects.get", "storage.objects.delete"
CREATE = "storage.objects.create"


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
def test_a_public_folder_is_a_public_bucket_as_far_as_the_object_lies_in_it(world, everyone):
    version, beside = world.drop(), world.drop(name="other/train.jsonl")
    world.cloud.grant_folder("acme-data", "data/", VIEWER, everyone)
    assert requests.get(object_url(world, version), timeout=10).content == rows()
    (refusal,) = refusals(world, version)
    assert (refusal.fact, refusal.principal) == ("is_not_public", everyone)
    assert refusal.fix == (
        "gcloud storage managed-folders remove-iam-policy-binding gs://acme-data/data/ "
        f"--member='{everyone}' --role={VIEWER} --all"
    )
    assert world.announce(version).status.message.endswith(f"run: {refusal.fix}")

    assert refusals(world, beside) == ()
    world.cloud.grant_folder("acme-data", "data/", VIEWER, f"serviceAccount:{world.acme.email}")
    assert world.announce(world.drop()).state is DatasetState.READY


def test_a_folder_that_is_granted_to_somebody_else_proves_nothing_of_this_tenant(world, evil):
    """And whom the owner does name there may train on it: that is what the folder is for."""
    version, beside = world.drop(), world.drop(name="data-evil/train.jsonl")
    evil = replace(evil, project_numbers=world.acme.project_numbers)
    for member in (f"group:{evil.email}", f"serviceAccount:{world.acme.email}", "projectViewer:p"):
        world.cloud.grant_folder("acme-data", "data/", VIEWER, member)
        assert {"account_may_read", "data_account_may_read"} <= world.refusals(evil, version)

    for folder in ("data/", "data-evil/"):
        world.cloud.grant_folder("acme-data", folder, VIEWER, f"serviceAccount:{evil.email}")
    for email in evil.data_accounts:
        world.cloud.grant("acme-data", VIEWER, f"serviceAccount:{email}")
    assert world.refusals(evil, version) == world.refusals(evil, beside) == set()


def test_an_owner_may_grant_folders_and_nothing_of_the_bucket(world):
    """What it may not list it does not look through, which is no fault of the sweep."""
    readers = [f"serviceAccount:{email}" for email in (world.acme.email, *world.acme.data_accounts)]
    world.cloud.change_policy(
        "acme-data", lambda bindings: [b for b in bindings if b["role"] not in (VIEWER, CREATOR)]
    )
    version = world.drop()
    assert "account_may_read" in world.refusals(world.acme, version)
    world.cloud.grant_folder("acme-data", "data/", VIEWER, *readers)
    world.cloud.grant_folder("acme-data", "models/", CREATOR, *readers[1:])
    assert world.announce(version).state is DatasetState.READY
    world.deliver()
    trainer = world.container()
    output = trainer.claim().training.writes
    (token,) = trainer.tokens
    assert world.cloud.status_of(token, CREATE, output.bucket, f"{output.prefix}model") == 200
    trainer.finish()
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED
    world.advance(hours=1)
    assert world.sweep.run().failures == []


def test_folders_that_are_not_shown_are_said_to_be_so(world):
    version = world.drop()

    def seen():
        report, _ = world.verification.check_access(world.acme, version, None)
        (found,) = (f for f in report.findings if f.fact == "managed_folders_are_read")
        return found

    assert seen().verdict is Verdict.PROVED
    blind = frozenset({"storage.buckets.get", "storage.buckets.getIamPolicy"})
    world._running.do(lambda cloud: cloud.iam.create_role(LOOKS, blind))
    assert seen().verdict is Verdict.NOT_VISIBLE
    assert "--add-permissions=storage.managedFolders.list" in seen().fix
    assert world.refusals(world.acme, version) == set()


def refusals(world, version):
    report, _ = world.verification.check_access(world.acme, version, None)
    return report.policy_refusals()


def object_url(world, version) -> str:
    name = requests.utils.quote(version.object, safe="")
    return f"{world.cloud.endpoints.storage}/storage/v1/b/{version.bucket}/o/{name}?alt=media"
