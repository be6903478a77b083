"""What the local cloud does not do it says, so that nobody thinks it done."""

import pytest
from google.api_core import exceptions as google_errors
from google.cloud.storage import Blob


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/storage/v1/projects/customer-project/hmacKeys"),
        ("POST", "/storage/v1/projects/customer-project/hmacKeys?serviceAccountEmail=a@b.c"),
        ("DELETE", "/storage/v1/projects/customer-project/hmacKeys/GOOG1"),
        ("POST", "/storage/v1/b/{bucket}/folders"),
        ("POST", "/storage/v1/b/{bucket}/anywhereCaches"),
        ("POST", "/storage/v1/b/{bucket}/o/bulkRestore"),
        ("POST", "/storage/v1/b/{bucket}/restore?generation=1"),
        ("POST", "/storage/v1/b/{bucket}/o/watch"),
        ("GET", "/storage/v1/b/{bucket}/o/data/iam"),
    ],
)
def test_what_is_not_offered_is_refused_with_a_reason(cloud, http, method, path):
    answer = http(method, path.format(bucket=cloud.bucket().name))
    error = answer.json()["error"]
    assert (answer.status_code, error["errors"][0]["reason"]) == (501, "notImplemented")
    assert "does not offer" in error["message"]


def test_hmac_keys_are_refused_to_googles_client(cloud):
    with pytest.raises(google_errors.MethodNotImplemented, match="HMAC"):
        cloud.client().create_hmac_key("a@b.c", project_id="customer-project")


ACL_ACTIONS = [
    lambda bucket, blob: bucket.acl.reload(),
    lambda bucket, blob: bucket.acl.save_predefined("private"),
    lambda bucket, blob: bucket.default_object_acl.reload(),
    lambda bucket, blob: blob.acl.reload(),
    lambda bucket, blob: blob.make_public(),
    lambda bucket, blob: blob.upload_from_string(b"", predefined_acl="publicRead"),
]


@pytest.mark.parametrize("act", ACL_ACTIONS)
def test_there_are_no_acls_where_access_is_uniform(cloud, act):
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(b"")
    with pytest.raises(google_errors.BadRequest, match="uniform bucket-level access is enabled"):
        act(blob.bucket, blob)


@pytest.mark.parametrize("act", ACL_ACTIONS)
def test_acls_are_refused_elsewhere_since_nothing_would_enforce_them(cloud, act):
    blob = cloud.bucket(uniform=False).blob("data")
    blob.upload_from_string(b"")
    with pytest.raises(google_errors.MethodNotImplemented, match="IAM"):
        act(blob.bucket, blob)


def test_nothing_is_encrypted_so_no_key_is_taken(cloud):
    bucket = cloud.bucket()
    blob = Blob("secret", bucket, encryption_key=b"k" * 32)
    with pytest.raises(google_errors.MethodNotImplemented, match="unencrypted"):
        blob.upload_from_string(b"")
    bucket.default_kms_key_name = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    with pytest.raises(google_errors.MethodNotImplemented, match="unencrypted"):
        bucket.patch()
    assert not bucket.blob("secret").exists()


def test_a_namespace_of_folders_is_refused(cloud):
    bucket = cloud.client().bucket(cloud.name("bucket"))
    bucket.hierarchical_namespace_enabled = True
    with pytest.raises(google_errors.MethodNotImplemented, match="flat"):
        bucket.create()


@pytest.mark.parametrize("path", ["/storage/v1/nothing", "/storage/v1/b/x/nothing"])
def test_a_path_that_is_none_is_not_found(http, path):
    answer = http("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 404)
