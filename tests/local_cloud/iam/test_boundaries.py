"""Tokens that were cut down with a Credential Access Boundary."""

import json

import google.auth.transport.requests
import pytest
import requests
from google.api_core import exceptions as google_errors
from google.auth import downscoped
from local_cloud.iam.asking import (
    CREATOR,
    TOKEN_CREATOR,
    VIEWER,
    create,
    cut_down,
    granted_impersonator,
    impersonated,
    object_path,
    read,
    rule,
)


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


def exchanged(cloud, token, boundary, **changes) -> requests.Response:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": token,
        "options": json.dumps(boundary),
    }
    return requests.post(f"{cloud.addresses.sts}/v1/token", data=form | changes, timeout=10)


def boundary_of(*rules):
    return {"accessBoundary": {"accessBoundaryRules": list(rules)}}


def test_several_rules_add_up_and_each_stays_in_its_bucket(cloud, bucket, reader):
    other = cloud.bucket()
    other.blob("data/a").upload_from_string(b"a")
    for role in (VIEWER, CREATOR):
        cloud.grant(other, role, reader)
    rules = [rule(bucket, VIEWER), rule(other, CREATOR)]
    token = cut_down(cloud, cloud.token(reader), *rules)
    assert read(cloud, bucket, token) == 200
    assert read(cloud, other, token) == 403
    assert create(cloud, other, token, "models/m") == 200
    assert create(cloud, bucket, token, "models/m") == 403


def test_a_rule_may_let_list_below_a_prefix(cloud, bucket, reader):
    name = f"resource.name.startsWith('{object_path(bucket, 'data/')}')"
    listing = "api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('data/')"
    token = cut_down(cloud, cloud.token(reader), rule(bucket, VIEWER, f"{name} || {listing}"))
    client = cloud.client(token)
    assert [blob.name for blob in client.list_blobs(bucket.name, prefix="data/")] == ["data/a"]
    with pytest.raises(google_errors.Forbidden):
        list(client.list_blobs(bucket.name, prefix="other/"))
    assert (read(cloud, bucket, token), read(cloud, bucket, token, "other/b")) == (200, 403)


def test_a_rule_may_be_of_a_custom_role(cloud, bucket, reader):
    name = f"projects/customer-project/roles/{cloud.name('getter').replace('-', '_')}"
    permission = frozenset({"storage.objects.get"})
    cloud.do(lambda inside: inside.iam.create_role(name, permission))
    token = cut_down(cloud, cloud.token(reader), rule(bucket, name))
    assert read(cloud, bucket, token) == 200
    with pytest.raises(google_errors.Forbidden):
        list(cloud.client(token).list_blobs(bucket.name))


def test_a_cut_down_token_ends_when_its_source_would(own_cloud):
    cloud = own_cloud()
    bucket, reader = cloud.bucket(), cloud.account()
    bucket.blob("data/a").upload_from_string(b"a")
    cloud.grant(bucket, VIEWER, reader)
    answer = exchanged(cloud, cloud.token(reader, ttl_s=60), boundary_of(rule(bucket, VIEWER)))
    assert answer.json()["expires_in"] <= 60
    cloud.clock.advance(seconds=61)
    assert read(cloud, bucket, answer.json()["access_token"]) == 401


RULE = {
    "availableResource": "//storage.googleapis.com/projects/_/buckets/a-bucket",
    "availablePermissions": [f"inRole:{VIEWER}"],
}
MALFORMED = {
    "no rules": boundary_of(),
    "eleven rules": boundary_of(*[RULE] * 11),
    "no boundary": {},
    "not an object": [],
    "no resource": boundary_of({"availablePermissions": [f"inRole:{VIEWER}"]}),
    "another service": boundary_of(RULE | {"availableResource": "//pubsub.googleapis.com/x"}),
    "an object": boundary_of(RULE | {"availableResource": f"{RULE['availableResource']}/x"}),
    "no permissions": boundary_of(RULE | {"availablePermissions": []}),
    "a bare role": boundary_of(RULE | {"availablePermissions": [VIEWER]}),
    "a role of nobody's": boundary_of(RULE | {"availablePermissions": ["inRole:roles/no.such"]}),
    "permissions as text": boundary_of(RULE | {"availablePermissions": f"inRole:{VIEWER}"}),
    "an empty condition": boundary_of(RULE | {"availabilityCondition": {"title": "t"}}),
    "no CEL": boundary_of(RULE | {"availabilityCondition": {"expression": "resource.name =="}}),
    "unknown attribute": boundary_of(
        RULE | {"availabilityCondition": {"expression": "resource.size == 3"}}
    ),
}


@pytest.mark.parametrize("boundary", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_boundary_is_refused_with_a_reason(cloud, reader, boundary):
    answer = exchanged(cloud, cloud.token(reader), boundary)
    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert answer.json()["error_description"]


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_type": "client_credentials"},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"},
        {"subject_token": ""},
    ],
)
def test_an_exchange_of_anything_but_an_access_token_is_refused(cloud, reader, changes):
    answer = exchanged(cloud, cloud.token(reader), boundary_of(RULE), **changes)
    assert answer.status_code in (400, 401)
