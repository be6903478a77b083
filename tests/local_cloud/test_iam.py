"""
The part that no other emulator has: tokens are resolved, and policies, conditions and boundaries
decide.
"""

import json
from urllib.parse import quote

import google.auth
import google.auth.transport.requests
import pytest
import requests
from google.api_core import exceptions as google_errors
from google.auth import downscoped, impersonated_credentials, jwt
from google.oauth2.credentials import Credentials

VIEWER, CREATOR = "roles/storage.objectViewer", "roles/storage.objectCreator"
TOKEN_CREATOR = "roles/iam.serviceAccountTokenCreator"


@pytest.fixture
def bucket(cloud):
    made = cloud.bucket()
    made.blob("data/a").upload_from_string(b"a")
    made.blob("other/b").upload_from_string(b"b")
    return made


@pytest.fixture
def reader(cloud, bucket):
    email = cloud.account()
    cloud.grant(bucket, VIEWER, email)
    return email


def read(cloud, bucket, token, name="data/a") -> int:
    path = f"b/{bucket.name}/o/{quote(name, safe='')}?alt=media"
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.get(
        f"{cloud.addresses.storage}/storage/v1/{path}", headers=headers, timeout=10
    ).status_code


def create(cloud, bucket, token, name) -> int:
    url = f"{cloud.addresses.storage}/upload/storage/v1/b/{bucket.name}/o"
    return requests.post(
        url,
        params={"uploadType": "media", "name": name},
        data=b"x",
        headers={"Authorization": f"Bearer {token}"},
        timeout=10,
    ).status_code


def cut_down(cloud, token, *rules) -> str:
    """Exchange a token at the STS for one with less in it."""
    boundary = {"accessBoundary": {"accessBoundaryRules": list(rules)}}
    answer = requests.post(
        f"{cloud.addresses.sts}/v1/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "subject_token": token,
            "options": json.dumps(boundary),
        },
        timeout=10,
    )
    answer.raise_for_status()
    return answer.json()["access_token"]


def rule(bucket, role, expression=""):
    made = {
        "availableResource": f"//storage.googleapis.com/projects/_/buckets/{bucket.name}",
        "availablePermissions": [f"inRole:{role}"],
    }
    if expression:
        made["availabilityCondition"] = {"title": "t", "expression": expression}
    return made


def object_path(bucket, name):
    return f"projects/_/buckets/{bucket.name}/objects/{name}"


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


def test_a_condition_on_the_name_bounds_a_grant(cloud, bucket):
    reader = cloud.account()
    expression = f'resource.name.startsWith("{object_path(bucket, "data/")}")'
    cloud.grant(bucket, VIEWER, reader, expression)
    token = cloud.token(reader)
    assert (read(cloud, bucket, token), read(cloud, bucket, token, "other/b")) == (200, 403)


def test_a_condition_on_the_time_ends_a_grant(own_cloud):
    cloud = own_cloud()
    bucket, reader = cloud.bucket(), cloud.account()
    bucket.blob("data/a").upload_from_string(b"a")
    end = f"{cloud.clock.now().replace(microsecond=0).isoformat().replace('+00:00', '')}Z"
    cloud.clock.advance(hours=-1)
    cloud.grant(bucket, VIEWER, reader, f'request.time < timestamp("{end}")')
    token = cloud.token(reader, ttl_s=3 * 3600)
    assert read(cloud, bucket, token) == 200
    cloud.clock.advance(hours=1)
    assert read(cloud, bucket, token) == 403


def test_a_condition_that_cannot_be_read_grants_nothing(cloud, bucket):
    reader = cloud.account()
    cloud.grant(bucket, VIEWER, reader, "resource.matchTag('env', 'prod')")
    assert read(cloud, bucket, cloud.token(reader)) == 403


def test_who_may_only_create_cannot_read_overwrite_or_delete(cloud, bucket):
    writer = cloud.account()
    cloud.grant(bucket, CREATOR, writer)
    token = cloud.token(writer)
    assert create(cloud, bucket, token, "models/new") == 200
    assert create(cloud, bucket, token, "models/new") == 403
    assert read(cloud, bucket, token, "models/new") == 403
    with pytest.raises(google_errors.Forbidden):
        cloud.client(token).bucket(bucket.name).blob("models/new").delete()


def test_a_boundary_lets_through_what_it_names_and_nothing_else(cloud, bucket, reader):
    cloud.grant(bucket, CREATOR, reader)
    whole = cloud.token(reader)
    token = cut_down(
        cloud,
        whole,
        rule(bucket, VIEWER, f'resource.name == "{object_path(bucket, "data/a")}"'),
        rule(bucket, CREATOR, f'resource.name.startsWith("{object_path(bucket, "models/")}")'),
    )
    assert read(cloud, bucket, token) == 200
    assert read(cloud, bucket, token, "other/b") == 403
    assert create(cloud, bucket, token, "models/m") == 200
    assert create(cloud, bucket, token, "elsewhere/m") == 403
    with pytest.raises(google_errors.Forbidden):
        list(cloud.client(token).list_blobs(bucket.name))
    assert read(cloud, bucket, whole, "other/b") == 200


def test_a_boundary_never_adds_a_right(cloud, bucket):
    stranger = cloud.account()
    token = cut_down(cloud, cloud.token(stranger), rule(bucket, VIEWER))
    assert read(cloud, bucket, token) == 403


def test_a_boundary_of_one_bucket_is_nothing_in_another(cloud, bucket, reader):
    other = cloud.bucket()
    other.blob("data/a").upload_from_string(b"a")
    cloud.grant(other, VIEWER, reader)
    token = cut_down(cloud, cloud.token(reader), rule(bucket, VIEWER))
    assert read(cloud, other, token) == 403


def test_a_token_that_was_cut_down_opens_nothing_but_storage(cloud, bucket, reader):
    target = cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{target}", TOKEN_CREATOR, reader)
    token = cut_down(cloud, cloud.token(reader), rule(bucket, VIEWER))
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{target}:generateAccessToken"
    headers = {"Authorization": f"Bearer {token}"}
    body = {"scope": ["x"]}
    assert requests.post(url, json=body, headers=headers, timeout=10).status_code == 403
    with pytest.raises(requests.HTTPError):
        cut_down(cloud, token, rule(bucket, VIEWER))


def test_a_cut_down_token_dies_with_its_source_account(cloud, bucket, reader):
    token = cut_down(cloud, cloud.token(reader), rule(bucket, VIEWER))
    cloud.do(lambda inside: inside.iam.service_accounts.set_disabled(reader, disabled=True))
    assert read(cloud, bucket, token) == 401


def test_googles_own_downscoping_works_unchanged(cloud, bucket, reader, monkeypatch):
    monkeypatch.setattr(
        downscoped, "_STS_TOKEN_URL_PATTERN", f"{cloud.addresses.sts}/v1/token#{{}}"
    )
    boundary = downscoped.CredentialAccessBoundary(
        rules=[
            downscoped.AccessBoundaryRule(
                available_resource=f"//storage.googleapis.com/projects/_/buckets/{bucket.name}",
                available_permissions=[f"inRole:{VIEWER}"],
                availability_condition=downscoped.AvailabilityCondition(
                    f"resource.name.startsWith('{object_path(bucket, 'data/')}')"
                ),
            )
        ]
    )
    source = impersonated(cloud, reader, by=granted_impersonator(cloud, reader))
    narrow = downscoped.Credentials(source_credentials=source, credential_access_boundary=boundary)
    narrow.refresh(google.auth.transport.requests.Request())
    assert read(cloud, bucket, narrow.token) == 200
    assert read(cloud, bucket, narrow.token, "other/b") == 403


def granted_impersonator(cloud, target) -> str:
    email = cloud.account()
    cloud.allow(f"projects/-/serviceAccounts/{target}", TOKEN_CREATOR, email)
    return email


def impersonated(cloud, target, *, by):
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{target}:generateAccessToken"
    return impersonated_credentials.Credentials(
        source_credentials=Credentials(cloud.token(by)),
        target_principal=target,
        target_scopes=["https://www.googleapis.com/auth/cloud-platform"],
        iam_endpoint_override=url,
    )


def test_impersonation_needs_the_right_to_it(cloud, bucket, reader):
    request = google.auth.transport.requests.Request()
    allowed = impersonated(cloud, reader, by=granted_impersonator(cloud, reader))
    allowed.refresh(request)
    assert read(cloud, bucket, allowed.token) == 200
    with pytest.raises(google.auth.exceptions.RefreshError, match="getAccessToken"):
        impersonated(cloud, reader, by=cloud.account()).refresh(request)


@pytest.mark.parametrize("lifetime", ["0s", "3601s", "-5s", "x", ""])
def test_a_token_lives_an_hour_at_most(cloud, reader, lifetime):
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}:generateAccessToken"
    body = {"scope": ["x"], "lifetime": lifetime}
    assert requests.post(url, json=body, timeout=10).status_code == 400


def test_a_disabled_account_gives_no_token(cloud, reader):
    cloud.do(lambda inside: inside.iam.service_accounts.set_disabled(reader, disabled=True))
    url = f"{cloud.addresses.iam}/v1/projects/-/serviceAccounts/{reader}:generateAccessToken"
    assert requests.post(url, json={"scope": ["x"]}, timeout=10).status_code == 412


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


def test_a_permission_test_is_honest(cloud, bucket, reader):
    asked = ["storage.objects.get", "storage.objects.delete", "storage.objects.list"]
    permitted = cloud.client(cloud.token(reader)).bucket(bucket.name).test_iam_permissions(asked)
    assert set(permitted) == {"storage.objects.get", "storage.objects.list"}


def test_a_custom_role_carries_what_it_was_made_with(cloud, bucket):
    looker = cloud.account()
    role = {"roleId": "looker", "role": {"includedPermissions": ["storage.buckets.getIamPolicy"]}}
    requests.post(
        f"{cloud.addresses.iam}/v1/projects/customer-project/roles", json=role, timeout=10
    )
    cloud.grant(bucket, "projects/customer-project/roles/looker", looker)
    client = cloud.client(cloud.token(looker))
    assert client.bucket(bucket.name).get_iam_policy(requested_policy_version=3).bindings
    with pytest.raises(google_errors.Forbidden, match=r"storage\.buckets\.get "):
        client.get_bucket(bucket.name)


def test_the_metadata_server_gives_a_process_its_own_identity(
    cloud, bucket, reader, monkeypatch, tmp_path
):
    host = cloud.metadata_host(reader)
    answer = requests.get(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token", timeout=10
    )
    assert answer.status_code == 403
    headers = {"Metadata-Flavor": "Google"}
    base = f"http://{host}/computeMetadata/v1"
    token = requests.get(
        f"{base}/instance/service-accounts/default/token", headers=headers, timeout=10
    ).json()
    assert read(cloud, bucket, token["access_token"]) == 200
    assert 0 < token["expires_in"] <= 3600
    account = requests.get(
        f"{base}/instance/service-accounts/default/?recursive=true", headers=headers, timeout=10
    )
    assert account.json()["email"] == reader


def test_an_id_token_is_signed_for_its_audience(cloud, reader):
    host = cloud.metadata_host(reader)
    url = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/identity"
    token = requests.get(
        url, params={"audience": "https://me"}, headers={"Metadata-Flavor": "Google"}, timeout=10
    ).text
    certificates = requests.get(f"{cloud.addresses.iam}/oauth2/v1/certs", timeout=10).json()
    claims = jwt.decode(token, certs=certificates, audience="https://me")
    assert (claims["email"], claims["email_verified"]) == (reader, True)
    with pytest.raises(google.auth.exceptions.GoogleAuthError):
        jwt.decode(token, certs=certificates, audience="https://somebody-else")
