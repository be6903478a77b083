"""What is deleted or overwritten stays as long as the bucket says, and can be brought back."""

import pytest
from google.api_core import exceptions as google_errors

DAY_S = 86_400


def generations(bucket, **which):
    return [blob.generation for blob in bucket.list_blobs(**which)]


@pytest.fixture
def overwritten(cloud):
    """A versioned object of two generations; the first is noncurrent."""
    blob = cloud.bucket(versioned=True).blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    return blob.bucket, first, blob.generation


def test_a_generation_stays_readable_in_a_versioned_bucket(overwritten):
    bucket, first, second = overwritten
    assert bucket.blob("data", generation=first).download_as_bytes() == b"first"
    assert bucket.blob("data").download_as_bytes() == b"second"
    assert second > first
    assert generations(bucket) == [second]
    assert generations(bucket, versions=True) == [first, second]


def test_a_generation_is_gone_once_overwritten_in_an_unversioned_bucket(cloud):
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    with pytest.raises(google_errors.NotFound):
        blob.bucket.blob("data", generation=first).download_as_bytes()


def test_deleting_makes_noncurrent_and_says_when(overwritten):
    bucket, first, second = overwritten
    bucket.blob("data").delete()
    assert not bucket.blob("data").exists()
    assert generations(bucket, versions=True) == [first, second]
    gone = bucket.get_blob("data", generation=second)
    assert gone.time_deleted is not None
    with pytest.raises(google_errors.NotFound):
        bucket.blob("data").delete()


def test_a_generation_that_is_named_is_deleted_for_good(overwritten):
    bucket, first, second = overwritten
    bucket.blob("data", generation=first).delete()
    assert generations(bucket, versions=True) == [second]
    bucket.blob("data", generation=second).delete()
    assert generations(bucket, versions=True) == []


def test_a_noncurrent_generation_can_be_made_live_by_copying_it(overwritten):
    bucket, first, _ = overwritten
    bucket.copy_blob(bucket.blob("data"), bucket, "data", source_generation=first)
    assert bucket.blob("data").download_as_bytes() == b"first"


def test_a_bucket_with_noncurrent_generations_is_not_empty(overwritten):
    bucket, _, _ = overwritten
    bucket.blob("data").delete()
    with pytest.raises(google_errors.Conflict):
        bucket.delete()


def test_metadata_of_a_noncurrent_generation_can_be_changed(overwritten):
    bucket, first, _ = overwritten
    old = bucket.blob("data", generation=first)
    old.metadata = {"old": "yes"}
    old.patch()
    assert bucket.get_blob("data", generation=first).metadata == {"old": "yes"}
    assert bucket.get_blob("data").metadata is None


# --- soft delete ----------------------------------------------------------------------------------


def test_a_new_bucket_keeps_what_is_deleted_for_seven_days(cloud):
    policy = cloud.bucket().soft_delete_policy
    assert policy.retention_duration_seconds == 7 * DAY_S
    assert policy.effective_time is not None


def test_what_was_deleted_can_be_found_and_restored(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1"}
    blob.upload_from_string(b"kept")
    gone = blob.generation
    blob.delete()
    assert not bucket.blob("data").exists()
    (found,) = bucket.list_blobs(soft_deleted=True)
    assert (found.generation, found.soft_delete_time is None) == (gone, False)
    shown = bucket.get_blob("data", generation=gone, soft_deleted=True)
    assert (shown.hard_delete_time - shown.soft_delete_time).days == 7
    restored = bucket.restore_blob("data", generation=gone)
    assert restored.generation > gone
    assert bucket.blob("data").download_as_bytes() == b"kept"
    assert bucket.get_blob("data").metadata == {"a": "1"}


def test_what_was_overwritten_can_be_restored_too(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    bucket.restore_blob("data", generation=first)
    assert bucket.blob("data").download_as_bytes() == b"first"


def test_a_restored_object_meets_the_preconditions_of_a_write(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    with pytest.raises(google_errors.PreconditionFailed):
        bucket.restore_blob("data", generation=first, if_generation_match=0)
    with pytest.raises(google_errors.NotFound):
        bucket.restore_blob("data", generation=12345)


def test_a_soft_deleted_object_cannot_be_read(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"kept")
    gone = blob.generation
    blob.delete()
    with pytest.raises(google_errors.NotFound):
        bucket.blob("data", generation=gone).download_as_bytes()


def test_a_bucket_can_keep_nothing(cloud):
    bucket = cloud.bucket()
    bucket.soft_delete_policy.retention_duration_seconds = 0
    bucket.patch()
    bucket.blob("data").upload_from_string(b"")
    bucket.blob("data").delete()
    assert generations(bucket, soft_deleted=True) == []
    assert bucket.soft_delete_policy.effective_time is None


@pytest.mark.parametrize("duration", [1, 6 * DAY_S, 91 * DAY_S])
def test_a_soft_delete_period_is_none_or_seven_to_ninety_days(cloud, duration):
    bucket = cloud.bucket()
    bucket.soft_delete_policy.retention_duration_seconds = duration
    with pytest.raises(google_errors.BadRequest, match="7 to 90 days"):
        bucket.patch()


def test_after_the_period_nothing_is_left(own_cloud, tmp_path):
    cloud = own_cloud()
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"gone")
    gone = blob.generation
    blob.delete()
    assert len(list((tmp_path / "storage" / "blobs").iterdir())) == 1
    cloud.clock.advance(days=7, seconds=1)
    assert generations(bucket, soft_deleted=True) == []
    with pytest.raises(google_errors.NotFound):
        bucket.restore_blob("data", generation=gone)
    cloud.do(lambda inside: inside.storage.forget_expired())
    assert list((tmp_path / "storage" / "blobs").iterdir()) == []


def test_a_bucket_takes_its_soft_deleted_objects_with_it(own_cloud, tmp_path):
    cloud = own_cloud()
    bucket = cloud.bucket()
    bucket.blob("data").upload_from_string(b"")
    bucket.blob("data").delete()
    bucket.delete()
    assert list((tmp_path / "storage" / "blobs").iterdir()) == []


def test_a_soft_deleted_object_survives_a_restart(own_cloud):
    cloud = own_cloud()
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"kept")
    gone = blob.generation
    blob.delete()
    cloud.restart()
    again = cloud.client().bucket(bucket.name)
    again.restore_blob("data", generation=gone)
    assert again.blob("data").download_as_bytes() == b"kept"
