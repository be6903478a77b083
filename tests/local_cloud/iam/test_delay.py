"""A change of policy decides after a delay, as in the cloud; here the delay is chosen."""

from datetime import timedelta

import pytest
from local_cloud.iam.asking import TOKEN_CREATOR, VIEWER, account_path, call, read
from running_cloud import MovableClock

from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam


@pytest.fixture
def slow(own_cloud):
    """A cloud where policies take two minutes."""
    cloud = own_cloud()

    def slow_down(inside):
        inside.iam.policies.delay = timedelta(minutes=2)

    cloud.slow_bucket = cloud.bucket()
    cloud.slow_bucket.blob("data/a").upload_from_string(b"a")
    cloud.do(slow_down)
    return cloud


def test_a_grant_opens_after_the_delay_and_is_read_at_once(slow):
    reader = slow.account()
    token = slow.token(reader, ttl_s=3600)
    slow.grant(slow.slow_bucket, VIEWER, reader)
    policy = slow.slow_bucket.get_iam_policy(requested_policy_version=3)
    assert {f"serviceAccount:{reader}"} in [binding["members"] for binding in policy.bindings]
    assert read(slow, slow.slow_bucket, token) == 403
    slow.clock.advance(seconds=119)
    assert read(slow, slow.slow_bucket, token) == 403
    slow.clock.advance(seconds=2)
    assert read(slow, slow.slow_bucket, token) == 200


def test_a_revoked_grant_goes_on_opening_until_the_delay_is_over(slow):
    reader = slow.account()
    slow.grant(slow.slow_bucket, VIEWER, reader)
    slow.do(lambda inside: inside.iam.policies.settle())
    token = slow.token(reader, ttl_s=3600)
    assert read(slow, slow.slow_bucket, token) == 200
    policy = slow.slow_bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings = [b for b in policy.bindings if f"serviceAccount:{reader}" not in b["members"]]
    slow.slow_bucket.set_iam_policy(policy)
    assert read(slow, slow.slow_bucket, token) == 200
    slow.clock.advance(minutes=2, seconds=1)
    assert read(slow, slow.slow_bucket, token) == 403


def test_changes_in_a_row_decide_one_after_the_other(slow):
    target = slow.account()
    path, resource = account_path(target, "setIamPolicy"), f"projects/-/serviceAccounts/{target}"
    emails = [slow.account() for _ in range(3)]
    for email in emails:
        binding = {"role": TOKEN_CREATOR, "members": [f"serviceAccount:{email}"]}
        call(slow, "POST", path, {"policy": {"bindings": [binding]}})
        slow.clock.advance(seconds=40)

    def in_force():
        policy = slow.do(lambda inside: inside.iam.policies.in_force(resource))
        return [member for binding in policy.bindings for member in binding.members]

    seen = []
    for _ in range(4):
        seen += [in_force()]
        slow.clock.advance(seconds=40)
    assert seen == [[f"serviceAccount:{email}"] for email in [*emails, emails[-1]]]


def test_the_delay_goes_on_through_a_restart(slow):
    reader = slow.account()
    slow.grant(slow.slow_bucket, VIEWER, reader)
    slow.restart()
    slow.do(lambda inside: setattr(inside.iam.policies, "delay", timedelta(minutes=2)))
    token = slow.token(reader)
    assert read(slow, slow.slow_bucket, token) == 403
    slow.clock.advance(minutes=2, seconds=1)
    assert read(slow, slow.slow_bucket, token) == 200


def test_a_delay_is_chosen_when_the_cloud_is_made():
    clock = MovableClock()
    iam = Iam(Database(":memory:"), clock, iam_delay=timedelta(seconds=60))
    member = "serviceAccount:a@p.iam.gserviceaccount.com"
    iam.policies.grant("projects/p", VIEWER, member)
    assert not iam.policies.in_force("projects/p").bindings
    clock.advance(seconds=61)
    assert iam.policies.in_force("projects/p").bindings[0].members == (member,)


def test_disabling_an_account_waits_for_nothing(slow):
    """Which is why a lease ends by it, and not by its grant alone."""
    reader = slow.account()
    slow.grant(slow.slow_bucket, VIEWER, reader)
    slow.do(lambda inside: inside.iam.policies.settle())
    token = slow.token(reader)
    call(slow, "POST", account_path(reader, "disable"))
    assert read(slow, slow.slow_bucket, token) == 401


def test_the_trace_says_when_a_change_will_be_in_force(slow):
    reader = slow.account()
    slow.grant(slow.slow_bucket, VIEWER, reader)
    assert read(slow, slow.slow_bucket, slow.token(reader)) == 403
    (record,) = slow.do(lambda inside: inside.iam.trace.records())[-1:]
    assert record["why"] == "policy change is not in force yet"
    assert record["near"][0]["in_force_at"] in record["explanation"]
