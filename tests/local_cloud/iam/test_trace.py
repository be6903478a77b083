"""Every denial can be explained afterwards, in a sentence, without a token in it."""

import json

import pytest
import requests
from local_cloud.iam.asking import CREATOR, VIEWER, account_path, call, cut_down, read, rule


def last(cloud):
    return cloud.do(lambda inside: inside.iam.trace.records())[-1]


def test_a_denial_says_who_lacked_what_on_what_and_which_role_would_do(cloud, bucket):
    stranger = cloud.account()
    read(cloud, bucket, cloud.token(stranger))
    record = last(cloud)
    name = f"projects/_/buckets/{bucket.name}/objects/data/a"
    assert record["principal"] == f"serviceAccount:{stranger}"
    assert (record["permission"], record["resource"]) == ("storage.objects.get", name)
    start = f"serviceAccount:{stranger} lacks storage.objects.get on {name}: "
    assert record["explanation"].startswith(start)
    assert record["time"].endswith("Z")


def test_no_binding_that_came_near_names_a_role_that_would_do(cloud):
    stranger, target = cloud.account(), cloud.account()
    call(cloud, "POST", account_path(target, "signBlob"), {}, token=cloud.token(stranger))
    record = last(cloud)
    assert (record["why"], record["near"]) == ("no binding came near", [])
    assert record["explanation"].endswith("; roles/iam.serviceAccountTokenCreator would")


def test_the_right_member_with_the_wrong_role_is_told_so(cloud, bucket):
    writer = cloud.account()
    cloud.grant(bucket, CREATOR, writer)
    read(cloud, bucket, cloud.token(writer))
    record = last(cloud)
    assert record["why"] == "right member, wrong role"
    assert f"it has {CREATOR} on buckets/{bucket.name}" in record["explanation"]
    assert f"{VIEWER} would" in record["explanation"]


def test_the_right_role_for_the_wrong_member_is_told_so(cloud, bucket, reader):
    stranger = cloud.account()
    read(cloud, bucket, cloud.token(stranger))
    record = last(cloud)
    assert record["why"] == "right role, wrong member"
    (near,) = [n for n in record["near"] if n["role"] == VIEWER]
    assert near["members"] == [f"serviceAccount:{reader}"]


def test_a_false_condition_and_one_that_cannot_be_evaluated_are_told_apart(cloud, bucket):
    for expression, why in (
        ("resource.name.endsWith('/b')", "condition is false"),
        ("resource.matchTag('a', 'b')", "condition cannot be evaluated"),
    ):
        reader = cloud.account()
        cloud.grant(bucket, VIEWER, reader, expression)
        read(cloud, bucket, cloud.token(reader))
        assert last(cloud)["why"] == why
        assert expression in last(cloud)["explanation"]


def test_what_a_boundary_cut_off_is_told_apart_from_what_was_never_granted(cloud, bucket, reader):
    token = cut_down(cloud, cloud.token(reader), rule(bucket, CREATOR))
    read(cloud, bucket, token)
    assert last(cloud)["why"] == "access boundary of the token"


def test_a_disabled_role_is_named(cloud, bucket):
    reader = cloud.account()
    role = {"roleId": "offRole", "role": {"includedPermissions": ["storage.objects.get"]}}
    call(cloud, "POST", "v1/projects/customer-project/roles", role)
    name = "projects/customer-project/roles/offRole"
    cloud.grant(bucket, name, reader)
    call(cloud, "DELETE", f"v1/{name}")
    read(cloud, bucket, cloud.token(reader))
    assert last(cloud)["why"] == "role is disabled, deleted or unknown"
    assert name in last(cloud)["explanation"]


@pytest.mark.parametrize(
    ("verb", "why"), [("disable", "account is disabled"), ("", "account was deleted")]
)
def test_a_token_whose_account_is_off_names_the_account(cloud, bucket, reader, verb, why):
    token = cloud.token(reader)
    call(cloud, "POST" if verb else "DELETE", account_path(reader, verb))
    assert read(cloud, bucket, token) == 401
    assert (last(cloud)["why"], last(cloud)["principal"]) == (why, f"serviceAccount:{reader}")


def test_an_expired_token_names_its_account(own_cloud):
    cloud = own_cloud()
    email = cloud.account()
    token = cloud.token(email, ttl_s=60)
    cloud.clock.advance(seconds=61)
    call(cloud, "GET", account_path(email), token=token)
    assert last(cloud)["why"] == "token has expired"
    assert last(cloud)["principal"] == f"serviceAccount:{email}"


def test_a_token_that_nobody_issued_is_remembered_without_itself(cloud):
    requests.get(
        f"{cloud.addresses.storage}/storage/v1/b/any/o/x",
        headers={"Authorization": "Bearer ya29.secret-of-somebody"},
        timeout=10,
    )
    assert last(cloud)["why"] == "token is unknown"
    assert "secret-of-somebody" not in json.dumps(last(cloud))


def test_a_call_without_a_token_is_told_that_it_has_none(own_cloud):
    cloud = own_cloud(anonymous_is_owner=False)
    call(cloud, "GET", account_path("somebody@platform-project.iam.gserviceaccount.com"))
    record = last(cloud)
    assert (record["principal"], record["why"]) == ("anonymous", "no token was sent")
    assert "no token was sent, and allUsers may not" in record["explanation"]


def test_no_record_holds_a_token(cloud, bucket, reader):
    token = cloud.token(cloud.account())
    read(cloud, bucket, token)
    records = cloud.do(lambda inside: inside.iam.trace.records())
    assert token not in json.dumps(records)


def test_the_last_two_hundred_denials_are_kept(own_cloud):
    cloud = own_cloud()
    caller, target = cloud.account(), cloud.account()
    token = cloud.token(caller)
    with requests.Session() as session:
        url = f"{cloud.addresses.iam}/{account_path(target)}"
        for _ in range(205):
            session.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
    assert len(cloud.do(lambda inside: inside.iam.trace.records())) == 200


def test_asking_what_one_may_is_no_denial(own_cloud):
    cloud = own_cloud()
    caller, target = cloud.account(), cloud.account()
    asked = {"permissions": ["iam.serviceAccounts.signBlob"]}
    path = account_path(target, "testIamPermissions")
    call(cloud, "POST", path, asked, token=cloud.token(caller))
    assert cloud.do(lambda inside: inside.iam.trace.records()) == []
