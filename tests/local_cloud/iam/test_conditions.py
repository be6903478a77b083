"""What a condition of a binding lets through."""

import pytest
from google.api_core import exceptions as google_errors
from local_cloud.iam.asking import (
    CREATOR,
    TOKEN_CREATOR,
    VIEWER,
    account_path,
    call,
    create,
    object_path,
    read,
)


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


def test_a_condition_on_the_listed_prefix_bounds_a_listing(cloud, bucket):
    """A listing has no object's name, so the prefix that it asks for stands for one."""
    reader = cloud.account()
    attribute = "api.getAttribute('storage.googleapis.com/objectListPrefix', '')"
    cloud.grant(bucket, VIEWER, reader, f"{attribute}.startsWith('data/')")
    client = cloud.client(cloud.token(reader))
    assert [blob.name for blob in client.list_blobs(bucket.name, prefix="data/")] == ["data/a"]
    for prefix in ("other/", "dat", None):
        with pytest.raises(google_errors.Forbidden):
            list(client.list_blobs(bucket.name, prefix=prefix))


@pytest.mark.parametrize(
    ("expression", "status"),
    [
        ("resource.type == 'storage.googleapis.com/Object'", 200),
        ("resource.type == 'storage.googleapis.com/Bucket'", 403),
        ("resource.service == 'storage.googleapis.com'", 200),
        ("resource.service == 'pubsub.googleapis.com'", 403),
        ("request.time < timestamp('2100-01-01T00:00:00Z')", 200),
        ("request.time > timestamp('2100-01-01T00:00:00Z')", 403),
        ("resource.name.endsWith('/data/a') && !resource.name.endsWith('b')", 200),
        ("resource.name.startsWith('x') || resource.service.startsWith('storage')", 200),
    ],
)
def test_conditions_see_the_resource_and_the_time(cloud, bucket, expression, status):
    reader = cloud.account()
    cloud.grant(bucket, VIEWER, reader, expression)
    assert read(cloud, bucket, cloud.token(reader)) == status


def test_a_condition_on_the_project_reaches_only_what_it_names(cloud):
    caller, near, far = (cloud.account() for _ in range(3))
    policy = {
        "version": 3,
        "bindings": [
            {
                "role": "roles/iam.serviceAccountViewer",
                "members": [f"serviceAccount:{caller}"],
                "condition": {
                    "title": "one account",
                    "expression": f"resource.name.endsWith('/{near}') && "
                    "resource.type == 'iam.googleapis.com/ServiceAccount'",
                },
            }
        ],
    }
    project = "v3/projects/platform-project"
    before = call(cloud, "POST", f"{project}:getIamPolicy").json()
    assert call(cloud, "POST", f"{project}:setIamPolicy", {"policy": policy}).status_code == 200
    token = cloud.token(caller)
    assert call(cloud, "GET", account_path(near), token=token).status_code == 200
    assert call(cloud, "GET", account_path(far), token=token).status_code == 403
    before.pop("etag")
    call(cloud, "POST", f"{project}:setIamPolicy", {"policy": before})


def test_a_condition_on_allusers_or_without_a_title_is_refused(cloud, reader):
    condition = {"title": "t", "expression": "true"}
    for members, given in (
        (["allUsers"], condition),
        (["allAuthenticatedUsers"], condition),
        ([f"serviceAccount:{reader}"], {"expression": "true"}),
        ([f"serviceAccount:{reader}"], {"title": "t"}),
    ):
        binding = {"role": TOKEN_CREATOR, "members": members, "condition": given}
        policy = {"policy": {"version": 3, "bindings": [binding]}}
        answer = call(cloud, "POST", account_path(reader, "setIamPolicy"), policy)
        assert answer.status_code == 400, given
