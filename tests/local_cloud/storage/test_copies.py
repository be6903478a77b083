"""New objects are made of old ones in the cloud, with the rights of reading and of writing."""

import base64

import google_crc32c
import pytest
from google.api_core import exceptions as google_errors


def put(bucket, name, data, **settings):
    blob = bucket.blob(name)
    for field, value in settings.items():
        setattr(blob, field, value)
    blob.upload_from_string(data, content_type="text/plain")
    return blob


def test_compose_joins_in_order(cloud):
    bucket = cloud.bucket()
    parts = [put(bucket, name, name.encode()) for name in ("one", "two", "three")]
    joined = bucket.blob("joined")
    joined.compose(parts)
    assert joined.download_as_bytes() == b"onetwothree"
    joined.reload()
    crc32c = base64.b64encode(google_crc32c.Checksum(b"onetwothree").digest()).decode()
    assert (joined.component_count, joined.md5_hash, joined.crc32c) == (3, None, crc32c)
    assert (joined.size, joined.content_type) == (11, "text/plain")


def test_components_are_counted_through(cloud):
    bucket = cloud.bucket()
    part = put(bucket, "part", b"x")
    double, triple = bucket.blob("double"), bucket.blob("triple")
    double.compose([part, part])
    triple.compose([double, part])
    triple.reload()
    assert (triple.component_count, triple.download_as_bytes()) == (3, b"xxx")


def test_compose_appends_to_what_it_overwrites(cloud):
    bucket = cloud.bucket()
    log, more = put(bucket, "log", b"a\n"), put(bucket, "more", b"b\n")
    log.compose([log, more])
    assert log.download_as_bytes() == b"a\nb\n"


def test_compose_can_take_old_generations(cloud):
    bucket = cloud.bucket(versioned=True)
    old = put(bucket, "data", b"old")
    put(bucket, "data", b"new")
    first = bucket.blob("data", generation=old.generation)
    bucket.blob("both").compose([first, bucket.blob("data")])
    assert bucket.blob("both").download_as_bytes() == b"oldnew"


def test_compose_can_delete_what_it_was_made_of(cloud):
    bucket = cloud.bucket()
    parts = [put(bucket, name, name.encode()) for name in ("one", "two")]
    bucket.blob("joined").compose(parts, delete_source_objects=True)
    assert [blob.name for blob in bucket.list_blobs()] == ["joined"]


def test_compose_refuses_none_too_many_and_what_is_not_there(cloud, http):
    bucket = cloud.bucket()
    part = put(bucket, "part", b"x")
    path = f"/storage/v1/b/{bucket.name}/o/new/compose"
    for sources in ([], [{"name": "part"}] * 33, ["part"], "part"):
        assert http("POST", path, json={"sourceObjects": sources}).status_code == 400
    with pytest.raises(google_errors.NotFound):
        bucket.blob("new").compose([part, bucket.blob("nothing")])
    assert not bucket.blob("new").exists()


def test_a_rewrite_is_a_copy_with_its_metadata(cloud):
    bucket, other = cloud.bucket(), cloud.bucket()
    source = put(bucket, "data", b"rows", metadata={"a": "1"}, cache_control="no-store")
    made = other.blob("copy")
    token, rewritten, size = made.rewrite(source)
    assert (token, rewritten, size) == (None, 4, 4)
    found = other.get_blob("copy")
    assert found.download_as_bytes() == b"rows"
    assert (found.metadata, found.cache_control, found.content_type) == (
        {"a": "1"},
        "no-store",
        "text/plain",
    )
    assert (found.md5_hash, found.crc32c) == (source.md5_hash, source.crc32c)


def test_a_rewrite_can_give_other_metadata(cloud):
    bucket = cloud.bucket()
    source = put(bucket, "data", b"rows", metadata={"a": "1"})
    made = bucket.blob("copy")
    made.metadata = {"b": "2"}
    made.content_type = "application/jsonl"
    made.rewrite(source)
    found = bucket.get_blob("copy")
    assert (found.metadata, found.content_type) == ({"b": "2"}, "application/jsonl")


def test_a_rewrite_takes_a_token(cloud):
    bucket = cloud.bucket()
    source = put(bucket, "data", b"rows")
    assert bucket.blob("copy").rewrite(source, token="from-another-time") == (None, 4, 4)


def test_a_copy_can_be_of_an_old_generation(cloud):
    bucket = cloud.bucket(versioned=True)
    old = put(bucket, "data", b"old").generation
    put(bucket, "data", b"new")
    made = bucket.copy_blob(bucket.blob("data"), bucket, "copy", source_generation=old)
    assert made.download_as_bytes() == b"old"


def test_a_copy_lives_on_when_its_source_is_gone(cloud):
    bucket = cloud.bucket()
    bucket.soft_delete_policy.retention_duration_seconds = 0
    bucket.patch()
    source = put(bucket, "data", b"rows")
    bucket.copy_blob(source, bucket, "copy")
    source.delete()
    assert bucket.blob("copy").download_as_bytes() == b"rows"


def test_a_move_leaves_one_object(cloud):
    bucket = cloud.bucket()
    source = put(bucket, "from", b"rows", metadata={"a": "1"})
    made = bucket.move_blob(source, "to/here")
    assert (made.name, made.metadata) == ("to/here", {"a": "1"})
    assert [blob.name for blob in bucket.list_blobs()] == ["to/here"]
    with pytest.raises(google_errors.BadRequest):
        bucket.move_blob(bucket.blob("to/here"), "to/here")


def test_renaming_is_copying_and_deleting(cloud):
    bucket = cloud.bucket()
    bucket.rename_blob(put(bucket, "from", b"rows"), "to")
    assert [blob.name for blob in bucket.list_blobs()] == ["to"]


# --- who may --------------------------------------------------------------------------------------


@pytest.fixture
def two_buckets(cloud):
    """A bucket to read from, one to write to, and somebody who has nothing yet."""
    source, target, somebody = cloud.bucket(), cloud.bucket(), cloud.account()
    put(source, "data", b"rows")
    put(target, "there", b"there")
    return source, target, somebody


def copy_as(cloud, somebody, source, target, name="new"):
    theirs = cloud.client(cloud.token(somebody))
    source, target = theirs.bucket(source.name), theirs.bucket(target.name)
    return source.copy_blob(source.blob("data"), target, name)


def test_copying_needs_to_read_the_one_and_to_write_the_other(cloud, two_buckets):
    source, target, somebody = two_buckets
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.get"):
        copy_as(cloud, somebody, source, target)
    cloud.grant(source, "roles/storage.objectViewer", somebody)
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.create"):
        copy_as(cloud, somebody, source, target)
    cloud.grant(target, "roles/storage.objectCreator", somebody)
    copy_as(cloud, somebody, source, target)
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.delete"):
        copy_as(cloud, somebody, source, target, "there")


def test_composing_needs_to_read_every_part(cloud, two_buckets):
    source, _, somebody = two_buckets
    cloud.grant(source, "roles/storage.objectCreator", somebody)
    theirs = cloud.client(cloud.token(somebody)).bucket(source.name)
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.get"):
        theirs.blob("new").compose([theirs.blob("data")])
    cloud.grant(source, "roles/storage.objectViewer", somebody)
    theirs.blob("new").compose([theirs.blob("data")])
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.delete"):
        theirs.blob("other").compose([theirs.blob("data")], delete_source_objects=True)
    assert not source.blob("other").exists() and source.blob("data").exists()


def test_moving_needs_the_right_to_move(cloud, two_buckets):
    source, _, somebody = two_buckets
    cloud.grant(source, "roles/storage.objectViewer", somebody)
    cloud.grant(source, "roles/storage.objectCreator", somebody)
    theirs = cloud.client(cloud.token(somebody)).bucket(source.name)
    with pytest.raises(google_errors.Forbidden, match=r"storage\.objects\.move"):
        theirs.move_blob(theirs.blob("data"), "moved")
    cloud.grant(source, "roles/storage.objectUser", somebody)
    theirs.move_blob(theirs.blob("data"), "moved")
