"""Who a token is of, and until when."""

import pytest
import requests
from google.api_core import exceptions as google_errors
from local_cloud.iam.asking import VIEWER, read


def test_a_grant_opens_and_its_absence_does_not(cloud, bucket, reader):
    stranger = cloud.account()
    assert read(cloud, bucket, cloud.token(reader)) == 200
    assert read(cloud, bucket, cloud.token(stranger)) == 403


def test_a_denial_names_the_permission(cloud, bucket):
    stranger = cloud.account()
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.get.*denied"):
        cloud.client(cloud.token(stranger)).bucket(bucket.name).blob("data/a").download_as_bytes()


@pytest.mark.parametrize("token", ["garbage", "ya29.local-guess", ""])
def test_a_token_that_nobody_issued_is_401(cloud, bucket, token):
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/o/data%2Fa"
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 401


def test_an_expired_token_is_401(own_cloud):
    cloud = own_cloud()
    bucket, reader = cloud.bucket(), cloud.account()
    bucket.blob("data/a").upload_from_string(b"a")
    cloud.grant(bucket, VIEWER, reader)
    token = cloud.token(reader, ttl_s=60)
    assert read(cloud, bucket, token) == 200
    cloud.clock.advance(seconds=61)
    assert read(cloud, bucket, token) == 401


def test_disabling_an_account_refuses_its_living_tokens_and_enabling_revives_them(
    cloud, bucket, reader
):
    token = cloud.token(reader)
    account = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}"
    assert requests.post(f"{account}:disable", json={}, timeout=10).status_code == 200
    assert read(cloud, bucket, token) == 401
    assert requests.post(f"{account}:enable", json={}, timeout=10).status_code == 200
    assert read(cloud, bucket, token) == 200


def test_a_deleted_accounts_token_is_401(cloud, bucket, reader):
    token = cloud.token(reader)
    requests.delete(f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}", timeout=10)
    assert read(cloud, bucket, token) == 401


def test_allusers_lets_everybody_in_and_nothing_else_does(own_cloud):
    cloud = own_cloud(anonymous_is_owner=False)
    caller = cloud.account()
    cloud.allow("projects/customer-project", "roles/storage.admin", caller)
    bucket = cloud.client(cloud.token(caller)).bucket("a-public-bucket")
    bucket.create()
    bucket.blob("data/a").upload_from_string(b"a")
    assert read(cloud, bucket, None) == 401
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": VIEWER, "members": {"allUsers"}})
    bucket.set_iam_policy(policy)
    assert read(cloud, bucket, None) == 200


def test_calls_without_a_token_are_refused_where_they_are_denied(own_cloud):
    cloud = own_cloud(anonymous_is_owner=False)
    url = f"{cloud.addresses.storage}/storage/v1/b?project=customer-project"
    assert requests.post(url, json={"name": "a-bucket"}, timeout=10).status_code == 401
