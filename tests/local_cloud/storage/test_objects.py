"""An object's name, its metadata and its links are what they were said to be."""

from datetime import UTC, datetime, timedelta

import pytest
import requests
from google.api_core import exceptions as google_errors


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "ä/ö", "a%2Fb", "a?b#c", "a+b&c=d", "\U0001f600", "/lead", "a//b", "a:b", "%"),
        *("a;b", "a\\b", "'\"", "tab\there", "../up", "trail/", "x" * 1024, "o/compose"),
    ],
)
def test_a_name_of_any_characters_comes_back_as_it_was(cloud, name):
    bucket = cloud.bucket()
    bucket.blob(name).upload_from_string(name.encode())
    assert bucket.blob(name).download_as_bytes() == name.encode()
    assert [b.name for b in bucket.list_blobs()] == [name]
    copied = bucket.copy_blob(bucket.blob(name), bucket, "copy")
    assert copied.name == "copy"
    bucket.blob(name).delete()
    assert not bucket.blob(name).exists()


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "x" * 1025, ".well-known/acme-challenge/x"])
def test_a_name_that_no_object_may_have_is_refused(cloud, name):
    with pytest.raises(google_errors.BadRequest):
        cloud.bucket().blob(name).upload_from_string(b"")


def test_a_name_that_is_not_utf_8_is_refused(cloud, http):
    answer = http("GET", f"/storage/v1/b/{cloud.bucket().name}/o/%ff")
    assert answer.status_code == 400 and "UTF-8" in answer.json()["error"]["message"]


def test_metadata_is_kept_merged_and_removed(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1", "c": "3"}
    blob.upload_from_string(b"", content_type="application/jsonl")
    blob.metadata = {"b": "2", "c": None}
    blob.patch()
    found = bucket.get_blob("data")
    assert (found.metadata, found.metageneration, found.content_type) == (
        {"a": "1", "b": "2"},
        2,
        "application/jsonl",
    )


def test_put_forgets_what_it_does_not_name(cloud, http):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1"}
    blob.cache_control = "no-store"
    blob.upload_from_string(b"kept", content_type="text/plain")
    path = f"/storage/v1/b/{bucket.name}/o/data"
    http("PUT", path, json={"contentLanguage": "de"})
    found = bucket.get_blob("data")
    assert (found.metadata, found.cache_control, found.content_language) == (None, None, "de")
    assert found.metageneration == 2 and found.download_as_bytes() == b"kept"


def test_every_editable_field_comes_back(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    fields = {
        "cache_control": "no-store",
        "content_disposition": "attachment",
        "content_encoding": "identity",
        "content_language": "en",
        "custom_time": datetime(2020, 1, 1, tzinfo=UTC),
        "metadata": {"k": "v"},
    }
    for field, value in fields.items():
        setattr(blob, field, value)
    blob.upload_from_string(b"")
    found = bucket.get_blob("data")
    assert {field: getattr(found, field) for field in fields} == fields


@pytest.mark.parametrize(
    "body",
    [
        {"metadata": {"a": 1}},
        {"metadata": ["a"]},
        {"contentType": 5},
        {"customTime": "yesterday"},
        {"temporaryHold": "yes"},
        {"storageClass": "NEARLINE"},
    ],
)
def test_metadata_of_another_kind_is_refused(cloud, http, body):
    bucket = cloud.bucket()
    bucket.blob("data").upload_from_string(b"")
    assert http("PATCH", f"/storage/v1/b/{bucket.name}/o/data", json=body).status_code == 400
    assert bucket.get_blob("data").metageneration == 1


def test_a_custom_time_goes_on_but_never_back(cloud):
    blob = cloud.bucket().blob("data")
    first = datetime(2020, 1, 1, tzinfo=UTC)
    blob.custom_time = first
    blob.upload_from_string(b"")
    blob.custom_time = first + timedelta(days=1)
    blob.patch()
    for earlier in (first, None):
        blob.custom_time = earlier
        with pytest.raises(google_errors.BadRequest, match="go back"):
            blob.patch()


def test_an_object_has_its_buckets_class_or_its_own(cloud):
    bucket = cloud.client().bucket(cloud.name("bucket"))
    bucket.storage_class = "NEARLINE"
    bucket.create()
    inherited, own = bucket.blob("inherited"), bucket.blob("own")
    own.storage_class = "ARCHIVE"
    for blob in (inherited, own):
        blob.upload_from_string(b"")
    assert (inherited.storage_class, own.storage_class) == ("NEARLINE", "ARCHIVE")


def test_a_class_is_changed_by_rewriting(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1"}
    blob.upload_from_string(b"kept", content_type="text/plain")
    blob.update_storage_class("COLDLINE")
    found = bucket.get_blob("data")
    assert (found.storage_class, found.content_type, found.metadata) == (
        "COLDLINE",
        "text/plain",
        {"a": "1"},
    )
    with pytest.raises(google_errors.BadRequest, match="storageClass"):
        bucket.blob("data").update_storage_class("GLACIER")


def test_links_are_local_and_absolute(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("a/b")
    blob.upload_from_string(b"x")
    for link in (blob.media_link, blob.self_link, bucket.self_link):
        assert link.startswith(cloud.addresses.storage)
        assert requests.get(link, timeout=10).status_code == 200
    assert requests.get(blob.media_link, timeout=10).content == b"x"
    session = bucket.blob("new").create_resumable_upload_session(size=1)
    assert session.startswith(cloud.addresses.storage)


def test_only_the_fields_that_were_asked_for_are_sent(cloud, http):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1", "b": "2"}
    blob.upload_from_string(b"hello")
    path = f"/storage/v1/b/{bucket.name}/o"

    def get(url, fields):
        return http("GET", url, params={"fields": fields}).json()

    assert get(f"{path}/data", "name,size") == {"name": "data", "size": "5"}
    assert get(f"{path}/data", "metadata/a") == {"metadata": {"a": "1"}}
    assert get(path, "items(name,metadata(b)),nextPageToken") == {
        "items": [{"name": "data", "metadata": {"b": "2"}}]
    }
    assert get(path, "items/size") == {"items": [{"size": "5"}]}
    assert get(path, "*")["kind"] == "storage#objects"
    assert http("GET", path, params={"fields": "items("}).status_code == 400


def test_what_is_not_there_is_not_found(cloud):
    bucket = cloud.bucket()
    for act in ("reload", "delete", "download_as_bytes", "patch"):
        with pytest.raises(google_errors.NotFound):
            getattr(bucket.blob("nothing"), act)()
    with pytest.raises(google_errors.NotFound):
        cloud.client().get_bucket("no-such-bucket-here")
