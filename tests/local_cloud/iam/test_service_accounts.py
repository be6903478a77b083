"""Service accounts as the IAM API makes, changes and ends them."""

import pytest
import requests
from local_cloud.iam.asking import TOKEN_CREATOR, VIEWER, account_path, call, read

HERE = "v1/projects/platform-project/serviceAccounts"


def create(cloud, account_id):
    return call(cloud, "POST", HERE, {"accountId": account_id}).json()


def test_an_account_is_made_found_renamed_and_listed(cloud):
    account_id = cloud.name("account")
    made = create(cloud, account_id)
    assert made["email"] == f"{account_id}@platform-project.iam.gserviceaccount.com"
    by_email = call(cloud, "GET", account_path(made["email"])).json()
    by_unique_id = call(cloud, "GET", account_path(made["uniqueId"])).json()
    assert by_email == by_unique_id == made
    renaming = {"serviceAccount": {"displayName": "reads"}, "updateMask": "displayName"}
    renamed = call(cloud, "PATCH", account_path(made["email"]), renaming).json()
    assert renamed == made | {"displayName": "reads"}
    assert call(cloud, "POST", HERE, {"accountId": account_id}).status_code == 409


def test_accounts_are_listed_by_the_page(own_cloud):
    cloud = own_cloud()
    emails = [create(cloud, f"account-{n}")["email"] for n in range(5)]
    first = call(cloud, "GET", HERE, pageSize=3).json()
    rest = call(cloud, "GET", HERE, pageSize=3, pageToken=first["nextPageToken"]).json()
    assert [a["email"] for a in first["accounts"] + rest["accounts"]] == emails
    assert "nextPageToken" not in rest


@pytest.mark.parametrize("account_id", ["short", "9starts-with-a-digit", "Upper-case", "x" * 31])
def test_a_malformed_account_id_is_refused(cloud, account_id):
    assert call(cloud, "POST", HERE, {"accountId": account_id}).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", HERE, {"accountId": "an-account", "serviceAccount": "text"}),
        ("POST", HERE, {"accountId": ["an-account"]}),
        ("POST", "v1/projects/platform-project/roles", {"roleId": "aRole", "role": []}),
        ("POST", "v3/projects/platform-project:getIamPolicy", {"options": [3]}),
        ("POST", "v3/projects/platform-project:setIamPolicy", {"policy": "text"}),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused(cloud, method, path, body):
    assert call(cloud, method, path, body).status_code == 400


def test_an_undeleted_account_has_its_token_its_place_and_its_policy_again(cloud, bucket, reader):
    token, impersonator = cloud.token(reader), cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{reader}", TOKEN_CREATOR, impersonator)
    unique_id = call(cloud, "GET", account_path(reader)).json()["uniqueId"]
    before = call(cloud, "POST", account_path(reader, "getIamPolicy")).json()["bindings"]
    call(cloud, "DELETE", account_path(reader))
    assert call(cloud, "GET", account_path(reader)).status_code == 404
    assert read(cloud, bucket, token) == 401
    restored = call(cloud, "POST", account_path(unique_id, "undelete"), {}).json()
    assert restored["restoredAccount"]["email"] == reader
    assert read(cloud, bucket, token) == 200
    assert call(cloud, "POST", account_path(reader, "getIamPolicy")).json()["bindings"] == before


def test_an_account_made_under_a_deleted_ones_name_inherits_nothing(cloud, bucket, reader):
    old_token, impersonator = cloud.token(reader), cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{reader}", TOKEN_CREATOR, impersonator)
    old = call(cloud, "GET", account_path(reader)).json()
    call(cloud, "DELETE", account_path(reader))
    members = [b["members"] for b in bucket.get_iam_policy(requested_policy_version=3).bindings]
    assert {f"deleted:serviceAccount:{reader}?uid={old['uniqueId']}"} in members
    create(cloud, reader.partition("@")[0])
    assert read(cloud, bucket, old_token) == 401
    assert read(cloud, bucket, cloud.token(reader)) == 403
    scope = {"scope": ["x"]}
    path = account_path(reader, "generateAccessToken")
    assert call(cloud, "POST", path, scope, token=cloud.token(impersonator)).status_code == 403
    assert call(cloud, "POST", account_path(old["uniqueId"], "undelete"), {}).status_code == 409


def test_a_metadata_server_gives_no_token_of_an_account_that_is_gone(cloud, bucket, reader):
    url = f"http://{cloud.metadata_host(reader)}/computeMetadata/v1/instance/service-accounts/"
    headers = {"Metadata-Flavor": "Google"}

    def token():
        return requests.get(f"{url}default/token", headers=headers, timeout=10)

    old = token().json()["access_token"]
    assert token().json()["access_token"] == old
    call(cloud, "DELETE", account_path(reader))
    assert token().status_code == 401
    create(cloud, reader.partition("@")[0])
    cloud.grant(bucket, VIEWER, reader)
    assert read(cloud, bucket, token().json()["access_token"]) == 200


@pytest.mark.parametrize(
    ("method", "verb", "permission"),
    [
        ("GET", "", "get"),
        ("PATCH", "", "update"),
        ("DELETE", "", "delete"),
        ("POST", "disable", "disable"),
        ("POST", "enable", "enable"),
        ("POST", "getIamPolicy", "getIamPolicy"),
        ("POST", "setIamPolicy", "setIamPolicy"),
        ("POST", "signBlob", "signBlob"),
        ("POST", "signJwt", "signJwt"),
        ("POST", "generateIdToken", "getOpenIdToken"),
        ("POST", "generateAccessToken", "getAccessToken"),
    ],
)
def test_every_method_of_an_account_needs_its_own_permission(cloud, method, verb, permission):
    target, caller = cloud.account(), cloud.account()
    answer = call(cloud, method, account_path(target, verb), {}, token=cloud.token(caller))
    assert answer.status_code == 403
    assert f"iam.serviceAccounts.{permission}" in answer.json()["error"]["message"]


def test_an_account_that_is_not_there_looks_forbidden_to_who_may_not_know(cloud):
    caller = cloud.account()
    path = account_path("nobody@platform-project.iam.gserviceaccount.com")
    assert call(cloud, "GET", path, token=cloud.token(caller)).status_code == 403
    cloud.allow("projects/platform-project", "roles/iam.serviceAccountAdmin", caller)
    assert call(cloud, "GET", path, token=cloud.token(caller)).status_code == 404


def test_accounts_their_state_and_their_keys_survive_a_restart(own_cloud):
    cloud = own_cloud()
    email = create(cloud, "an-account")["email"]
    call(cloud, "POST", account_path(email, "disable"))
    keys = f"robot/v1/metadata/x509/{email}"
    before = call(cloud, "GET", keys).json()
    cloud.restart()
    assert call(cloud, "GET", account_path(email)).json()["disabled"] is True
    assert call(cloud, "GET", keys).json() == before
