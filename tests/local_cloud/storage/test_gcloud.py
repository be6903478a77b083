"""`gcloud storage` does with a local bucket what it does with any other."""

import os

import pytest
from local_cloud.gcloud import Gcloud, needs_gcloud

pytestmark = needs_gcloud
LARGE = os.urandom(9 * 2**20)


@pytest.fixture
def gcloud(cloud, tmp_path):
    return Gcloud(tmp_path, storage=cloud.addresses.storage)


def test_files_are_copied_there_listed_shown_copied_back_and_removed(cloud, gcloud, tmp_path):
    bucket = cloud.bucket()
    data = f"gs://{bucket.name}/data"
    (tmp_path / "small").write_text("small\n")
    (tmp_path / "large").write_bytes(LARGE)
    gcloud("storage", "cp", str(tmp_path / "small"), str(tmp_path / "large"), f"{data}/")
    assert gcloud("storage", "ls", f"{data}/").split() == [f"{data}/large", f"{data}/small"]
    (tmp_path / "back").mkdir()
    gcloud("storage", "cp", f"{data}/*", str(tmp_path / "back"))
    assert (tmp_path / "back" / "small").read_text() == "small\n"
    assert (tmp_path / "back" / "large").read_bytes() == LARGE
    gcloud("storage", "rm", f"{data}/large")
    assert [blob.name for blob in bucket.list_blobs()] == ["data/small"]


def test_objects_are_moved_composed_restored_and_deleted_with_their_bucket(cloud, gcloud):
    bucket = cloud.bucket()
    bucket.blob("in/part").upload_from_string("part\n")
    url = f"gs://{bucket.name}"
    gcloud("storage", "mv", f"{url}/in/part", f"{url}/moved")
    gcloud("storage", "objects", "compose", f"{url}/moved", f"{url}/moved", f"{url}/both")
    assert bucket.blob("both").download_as_text() == "part\npart\n"
    bucket.blob("both").delete()
    (deleted,) = gcloud("storage", "ls", "--soft-deleted", f"{url}/both").split()
    gcloud("storage", "restore", deleted)
    assert [blob.name for blob in bucket.list_blobs()] == ["both", "moved"]
    gcloud("storage", "rm", "-r", url)
    assert not bucket.exists()


def test_buckets_are_created_shown_and_changed(cloud, gcloud):
    bucket = cloud.client().bucket(cloud.name("bucket"))
    url = f"gs://{bucket.name}"
    gcloud("storage", "buckets", "create", url, "--uniform-bucket-level-access")
    bucket.blob("data").upload_from_string(b"")
    changes = ("--versioning", "--update-labels=a=b", "--retention-period=1d")
    gcloud("storage", "buckets", "update", url, *changes)
    bucket.reload()
    assert bucket.iam_configuration.uniform_bucket_level_access_enabled
    assert (bucket.versioning_enabled, bucket.labels) == (True, {"a": "b"})
    assert bucket.retention_period == 86_400
    assert "versioning_enabled: true" in gcloud("storage", "buckets", "describe", url)
    changes = ("--custom-metadata=key=value", "--temporary-hold")
    gcloud("storage", "objects", "update", f"{url}/data", *changes)
    data = bucket.get_blob("data")
    assert (data.metadata, data.temporary_hold) == ({"key": "value"}, True)
