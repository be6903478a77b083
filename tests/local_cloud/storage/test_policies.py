"""Who may do what in a bucket is written where everybody can read it, and refused when wrong."""

import json

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

VIEWER = "roles/storage.objectViewer"


def test_a_policy_read_before_somebody_elses_change_cannot_be_written(cloud):
    bucket, reader = cloud.bucket(), cloud.account()
    mine = bucket.get_iam_policy(requested_policy_version=3)
    cloud.grant(bucket, VIEWER, reader)
    mine.bindings.append(
        {"role": "roles/storage.objectAdmin", "members": {f"serviceAccount:{reader}"}}
    )
    with pytest.raises(google_errors.PreconditionFailed, match="stale"):
        bucket.set_iam_policy(mine)


def test_a_policy_with_conditions_is_not_shown_to_who_would_not_see_them(cloud):
    bucket, reader = cloud.bucket(), cloud.account()
    cloud.grant(bucket, VIEWER, reader, 'resource.name.startsWith("x")')
    with pytest.raises(google_errors.BadRequest, match="version"):
        bucket.get_iam_policy(requested_policy_version=1)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ({"role": "objectViewer", "members": ["user:a@b.c"]}, "does not exist"),
        ({"role": "roles/storage.nothing", "members": ["user:a@b.c"]}, "does not exist"),
        ({"role": VIEWER, "members": ["a@b.c"]}, "member"),
        ({"role": VIEWER, "members": ["user:not-an-email"]}, "member"),
        ({"role": VIEWER, "members": "user:a@b.c"}, "members"),
        ("viewer", "binding"),
    ],
)
def test_a_malformed_policy_is_refused(cloud, http, binding, words):
    path = f"/storage/v1/b/{cloud.bucket().name}/iam"
    answer = http("PUT", path, data=json.dumps({"version": 3, "bindings": [binding]}))
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


@pytest.mark.parametrize("version", ["first", 4, -1])
def test_a_version_that_no_policy_has_is_refused(cloud, http, version):
    path = f"/storage/v1/b/{cloud.bucket().name}/iam"
    assert http("PUT", path, json={"version": version}).status_code == 400
    assert http("GET", f"{path}?optionsRequestedPolicyVersion={version}").status_code == 400


def test_conditions_need_version_3_and_uniform_access(cloud, http):
    binding = {
        "role": VIEWER,
        "members": ["user:a@b.c"],
        "condition": {"title": "t", "expression": "true"},
    }
    for bucket, version in ((cloud.bucket(), 1), (cloud.bucket(uniform=False), 3)):
        path = f"/storage/v1/b/{bucket.name}/iam"
        body = {"version": version, "bindings": [binding]}
        assert http("PUT", path, json=body).status_code == 400


def test_permissions_that_are_asked_about_are_those_that_one_has(cloud):
    bucket, reader = cloud.bucket(), cloud.account()
    bucket.blob("data/a").upload_from_string(b"")
    bucket.blob("other").upload_from_string(b"")
    prefix = f"projects/_/buckets/{bucket.name}/objects/data/"
    cloud.grant(bucket, VIEWER, reader, f'resource.name.startsWith("{prefix}")')
    asked = ["storage.objects.get", "storage.objects.delete"]
    theirs = cloud.client(cloud.token(reader)).bucket(bucket.name)
    assert theirs.test_iam_permissions(asked) == []
    assert theirs.blob("data/a").test_iam_permissions(asked) == ["storage.objects.get"]
    assert theirs.blob("other").test_iam_permissions(asked) == []
    assert theirs.blob("data/a").download_as_bytes() == b""


def test_permissions_of_others_cannot_be_asked_about(cloud):
    with pytest.raises(google_errors.BadRequest, match=r"run\.jobs\.get"):
        cloud.bucket().test_iam_permissions(["run.jobs.get"])


# --- the public -----------------------------------------------------------------------------------


def prevent(bucket):
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.patch()


def test_public_access_prevention_refuses_to_let_everybody_in(cloud):
    bucket = cloud.bucket()
    prevent(bucket)
    for everybody in ("allUsers", "allAuthenticatedUsers"):
        policy = bucket.get_iam_policy(requested_policy_version=3)
        policy.bindings.append({"role": VIEWER, "members": {everybody}})
        with pytest.raises(google_errors.PreconditionFailed, match="public access prevention"):
            bucket.set_iam_policy(policy)


@pytest.mark.parametrize("everybody", ["allUsers", "allAuthenticatedUsers"])
def test_public_access_prevention_shuts_out_who_was_in(own_cloud, everybody):
    cloud = own_cloud()
    bucket, somebody = cloud.bucket(), cloud.account()
    bucket.blob("data").upload_from_string(b"public")
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": VIEWER, "members": {everybody}})
    bucket.set_iam_policy(policy)
    theirs = cloud.client(cloud.token(somebody)).bucket(bucket.name)
    assert theirs.blob("data").download_as_bytes() == b"public"
    prevent(bucket)
    with pytest.raises(google_errors.Forbidden):
        theirs.blob("data").download_as_bytes()
    assert theirs.test_iam_permissions(["storage.objects.get"]) == []
    cloud.do(
        lambda inside: inside.iam.policies.grant(
            f"buckets/{bucket.name}", VIEWER, f"serviceAccount:{somebody}"
        )
    )
    assert theirs.blob("data").download_as_bytes() == b"public"


def test_what_is_public_is_read_by_nobody_in_particular(own_cloud):
    cloud = own_cloud(anonymous_is_owner=False)
    made = cloud.do(_public_bucket)
    anybody = storage.Client(
        project="customer-project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": cloud.addresses.storage},
    )
    assert list(anybody.list_blobs(made)) == []
    url = f"{cloud.addresses.storage}/storage/v1/b/{made}"
    answer = requests.get(url, timeout=10)
    assert answer.status_code == 401
    assert answer.json()["error"]["errors"][0]["reason"] == "required"


def _public_bucket(inside):
    from sublet.local.iam.tokens import Caller

    owner = Caller(email=None, is_owner=True)
    uniform = {"iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}}}
    made = inside.storage.buckets.create(owner, "customer-project", {"name": "public"} | uniform)
    inside.iam.policies.grant(made.resource, VIEWER, "allUsers")
    return made.name
