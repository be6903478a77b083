"""A write that expects something else than what is there loses; so does a read that says so."""

import io

import pytest
from google.api_core import exceptions as google_errors
from google.cloud.storage import Blob, Bucket

MIB = 2**20
REFUSED = (google_errors.PreconditionFailed, google_errors.NotModified)


def upload(blob, **conditions):
    blob.upload_from_string(b"new", **conditions)


def resumable(blob, **conditions):
    blob.chunk_size = 256 * 1024
    blob.upload_from_file(io.BytesIO(b"x" * MIB), size=MIB, **conditions)


def compose(blob, **conditions):
    part = blob.bucket.blob("part")
    part.upload_from_string(b"part")
    blob.compose([part], **conditions)


def rewrite(blob, **conditions):
    part = blob.bucket.blob("part")
    part.upload_from_string(b"part")
    blob.rewrite(part, **conditions)


def copy(blob, **conditions):
    part = blob.bucket.blob("part")
    part.upload_from_string(b"part")
    blob.bucket.copy_blob(part, blob.bucket, blob.name, **conditions)


def move(blob, **conditions):
    part = blob.bucket.blob("part")
    part.upload_from_string(b"part")
    blob.bucket.move_blob(part, blob.name, **conditions)


VERBS = {
    "upload": upload,
    "resumable": resumable,
    "rewrite": rewrite,
    "copy": copy,
    "move": move,
    "patch": Blob.patch,
    "update": Blob.update,
    "reload": Blob.reload,
    "download": Blob.download_as_bytes,
    "delete": Blob.delete,
}
# What is there: some generation, at metageneration 2.
UNMET = {
    "generation": lambda there: {"if_generation_match": there.generation - 1},
    "absence": lambda there: {"if_generation_match": 0},
    "other generation": lambda there: {"if_generation_not_match": there.generation},
    "metageneration": lambda there: {"if_metageneration_match": 1},
    "other metageneration": lambda there: {"if_metageneration_not_match": 2},
}
MET = {
    "generation": lambda there: {"if_generation_match": there.generation},
    "presence": lambda there: {"if_generation_not_match": 0},
    "metageneration": lambda there: {"if_metageneration_match": 2},
    "other metageneration": lambda there: {"if_metageneration_not_match": 1},
}


@pytest.fixture
def there(cloud):
    """An object that was overwritten once and patched once."""
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(b"first")
    blob.upload_from_string(b"second")
    blob.metadata = {"a": "1"}
    blob.patch()
    return blob


@pytest.mark.parametrize("condition", UNMET)
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_is_done_unless_what_is_there_is_what_was_expected(cloud, there, verb, condition):
    act = VERBS[verb]
    with pytest.raises(REFUSED):
        act(there.bucket.blob("data"), **UNMET[condition](there))
    after = there.bucket.get_blob("data")
    assert (after.generation, after.metageneration) == (there.generation, 2)


@pytest.mark.parametrize("condition", MET)
@pytest.mark.parametrize("verb", VERBS)
def test_it_is_done_if_it_is(cloud, there, verb, condition):
    VERBS[verb](there.bucket.blob("data"), **MET[condition](there))


@pytest.mark.parametrize("condition", ["if_generation_match", "if_metageneration_match"])
def test_compose_minds_what_it_would_overwrite(cloud, there, condition):
    with pytest.raises(google_errors.PreconditionFailed):
        compose(there.bucket.blob("data"), **{condition: 1})
    assert there.bucket.blob("data").download_as_bytes() == b"second"


@pytest.mark.parametrize(
    "verb", [name for name in VERBS if name in ("upload", "resumable", "rewrite", "copy", "move")]
)
def test_a_write_can_insist_that_there_be_something_to_overwrite(cloud, verb):
    blob = cloud.bucket().blob("data")
    for condition in ({"if_generation_not_match": 0}, {"if_metageneration_match": 1}):
        with pytest.raises(google_errors.PreconditionFailed):
            VERBS[verb](blob, **condition)
    assert not blob.exists()
    VERBS[verb](blob, if_generation_match=0)
    assert blob.exists()


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("ifGenerationMatch=0", 412),
        ("ifGenerationMatch=1", 412),
        ("ifGenerationNotMatch=0", 200),
        ("ifMetagenerationMatch=1", 412),
        ("ifMetagenerationNotMatch=2", 412),
        ("ifMetagenerationMatch=2", 200),
        ("ifGenerationMatch=first", 400),
    ],
)
def test_a_media_upload_minds_them_too(there, http, condition, status):
    path = f"/upload/storage/v1/b/{there.bucket.name}/o?uploadType=media&name=data&{condition}"
    assert http("POST", path, data=b"new").status_code == status


@pytest.mark.parametrize("verb", ["rewrite_to", "copy_to", "move_to"])
@pytest.mark.parametrize(
    "condition",
    [
        lambda there: {"if_source_generation_match": there.generation - 1},
        lambda there: {"if_source_generation_not_match": there.generation},
        lambda there: {"if_source_metageneration_match": 1},
        lambda there: {"if_source_metageneration_not_match": 2},
    ],
)
def test_a_copy_minds_what_it_is_made_of(cloud, there, verb, condition):
    bucket, conditions = there.bucket, condition(there)
    source = bucket.blob("data")
    act = {
        "rewrite_to": lambda: bucket.blob("new").rewrite(source, **conditions),
        "copy_to": lambda: bucket.copy_blob(source, bucket, "new", **conditions),
        "move_to": lambda: bucket.move_blob(source, "new", **conditions),
    }[verb]
    with pytest.raises(google_errors.PreconditionFailed):
        act()
    assert not bucket.blob("new").exists() and bucket.blob("data").exists()


def test_compose_minds_the_generation_of_each_part(cloud, there):
    bucket = there.bucket
    other = bucket.blob("other")
    other.upload_from_string(b"other")
    parts = [bucket.blob("data"), bucket.blob("other")]
    generations = [there.generation, other.generation]
    with pytest.raises(google_errors.PreconditionFailed):
        bucket.blob("new").compose(parts, if_source_generation_match=[generations[0], 1])
    bucket.blob("new").compose(parts, if_source_generation_match=generations)
    assert bucket.blob("new").download_as_bytes() == b"secondother"


def test_what_was_expected_at_the_start_of_a_session_must_hold_at_its_end(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    url = blob.create_resumable_upload_session(size=3, if_generation_match=0)
    blob.upload_from_string(b"meanwhile")
    headers = {"Content-Range": "bytes 0-2/3"}
    answer = cloud.client()._http.put(url, data=b"new", headers=headers)
    assert answer.status_code == 412
    assert blob.download_as_bytes() == b"meanwhile"


def delete_bucket(bucket, if_metageneration_match):
    """The client's own `delete` has no preconditions; its connection has."""
    conditions = {"ifMetagenerationMatch": if_metageneration_match}
    bucket.client._delete_resource(bucket.path, query_params=conditions)


@pytest.mark.parametrize("act", [Bucket.reload, Bucket.patch, Bucket.update, delete_bucket])
def test_a_bucket_is_as_careful(cloud, act):
    bucket = cloud.bucket()
    bucket.labels = {"a": "b"}
    bucket.patch()
    with pytest.raises(google_errors.PreconditionFailed):
        act(bucket, if_metageneration_match=1)
    assert bucket.metageneration == 2 and bucket.exists()
    act(bucket, if_metageneration_match=2)


def test_a_bucket_that_has_not_changed_is_not_sent_again(cloud):
    with pytest.raises(google_errors.NotModified):
        cloud.bucket().reload(if_metageneration_not_match=1)
