"""
Cloud Storage as google-cloud-storage uses it: what correctness rests on, tried with the real
client.
"""

import io
import json
import os
import threading

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.cloud.storage import transfer_manager

MIB = 2**20


def test_what_is_uploaded_is_downloaded(cloud):
    blob = cloud.bucket().blob("a.txt")
    blob.upload_from_string(b"hello", content_type="text/plain")
    assert blob.download_as_bytes() == b"hello"
    blob.reload()
    assert (blob.size, blob.content_type, blob.crc32c) == (5, "text/plain", "mnG7TA==")


def test_a_large_upload_goes_in_pieces_and_comes_out_whole(cloud):
    data = os.urandom(3 * MIB + 17)
    blob = cloud.bucket().blob("large", chunk_size=MIB)
    blob.upload_from_file(io.BytesIO(data), size=len(data))
    assert blob.download_as_bytes(checksum="md5") == data


def test_a_resumable_upload_goes_on_after_a_restart(own_cloud):
    cloud = own_cloud()
    bucket = cloud.bucket()
    url = bucket.blob("resumed").create_resumable_upload_session(size=512 * 1024)
    half = b"a" * 256 * 1024
    first = requests.put(
        url, data=half, headers={"Content-Range": "bytes 0-262143/524288"}, timeout=10
    )
    assert (first.status_code, first.headers["range"]) == (308, "bytes=0-262143")
    cloud.restart()
    asked = requests.put(url, headers={"Content-Range": "bytes */524288"}, timeout=10)
    assert (asked.status_code, asked.headers["range"]) == (308, "bytes=0-262143")
    last = requests.put(
        url, data=half, headers={"Content-Range": "bytes 262144-524287/524288"}, timeout=10
    )
    assert last.status_code == 200
    assert bucket.blob("resumed").download_as_bytes() == half * 2


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 0, b"0"), (2, 4, b"234"), (7, None, b"789"), (0, 99, b"0123456789"), (9, 9, b"9")],
)
def test_a_range_is_exactly_what_was_asked_for(cloud, start, end, expected):
    blob = cloud.bucket().blob("digits")
    blob.upload_from_string(b"0123456789")
    assert blob.download_as_bytes(start=start, end=end, raw_download=True) == expected


def test_the_tail_and_what_lies_beyond_the_end(cloud):
    bucket = cloud.bucket()
    bucket.blob("digits").upload_from_string(b"0123456789")
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/o/digits?alt=media"
    tail = requests.get(url, headers={"Range": "bytes=-3"}, timeout=10)
    assert (tail.status_code, tail.content, tail.headers["content-range"]) == (
        206,
        b"789",
        "bytes 7-9/10",
    )
    assert requests.get(url, headers={"Range": "bytes=10-"}, timeout=10).status_code == 416


def test_a_generation_stays_readable_in_a_versioned_bucket(cloud):
    bucket = cloud.bucket(versioned=True)
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    assert bucket.blob("data", generation=first).download_as_bytes() == b"first"
    assert bucket.blob("data").download_as_bytes() == b"second"
    assert blob.generation > first
    versions = list(bucket.list_blobs(versions=True))
    assert [v.generation for v in versions] == [first, blob.generation]


def test_a_generation_is_gone_once_overwritten_in_an_unversioned_bucket(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"first")
    first = blob.generation
    blob.upload_from_string(b"second")
    with pytest.raises(google_errors.NotFound):
        bucket.blob("data", generation=first).download_as_bytes()


def test_a_reading_that_began_before_an_overwrite_ends_as_it_began(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    old = os.urandom(8 * MIB)
    blob.upload_from_string(old)
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/o/data?alt=media"
    with requests.get(url, stream=True, timeout=10) as reading:
        first = next(reading.iter_content(MIB))
        blob.upload_from_string(b"new")
        assert first + b"".join(reading.iter_content(MIB)) == old


def test_create_if_absent_has_one_winner_among_many(cloud):
    bucket, outcomes = cloud.bucket(), []

    def try_to_create(number):
        blob = cloud.client().bucket(bucket.name).blob("manifest.json")
        try:
            blob.upload_from_string(str(number), if_generation_match=0, retry=None)
            outcomes.append(number)
        except google_errors.PreconditionFailed:
            pass

    threads = [threading.Thread(target=try_to_create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(n).encode() for n in outcomes] == [bucket.blob("manifest.json").download_as_bytes()]


def resumable(blob, stale):
    blob.chunk_size = 256 * 1024
    blob.upload_from_file(io.BytesIO(b"x" * MIB), size=MIB, if_generation_match=stale)


@pytest.mark.parametrize(
    "act",
    [
        lambda blob, stale: blob.upload_from_string(b"x", if_generation_match=stale),
        resumable,
        lambda blob, stale: blob.delete(if_generation_match=stale),
        lambda blob, stale: blob.patch(if_generation_match=stale),
        lambda blob, stale: blob.reload(if_generation_match=stale),
        lambda blob, stale: blob.download_as_bytes(if_generation_match=stale),
    ],
    ids=["upload", "resumable", "delete", "patch", "get", "download"],
)
def test_every_verb_minds_a_generation_that_is_not_the_live_one(cloud, act):
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(b"first")
    stale = blob.generation
    blob.upload_from_string(b"second")
    with pytest.raises(google_errors.PreconditionFailed):
        act(blob, stale)


@pytest.mark.parametrize("checksum", ["crc32c=AAAAAA==", "md5=AAAAAAAAAAAAAAAAAAAAAA=="])
def test_bytes_that_are_not_what_the_sender_meant_are_refused(cloud, checksum):
    bucket = cloud.bucket()
    url = (
        f"{cloud.addresses.storage}/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=data"
    )
    answer = requests.post(url, data=b"data", headers={"X-Goog-Hash": checksum}, timeout=10)
    assert answer.status_code == 400
    assert "does not match" in answer.json()["error"]["message"]
    assert not bucket.blob("data").exists()


def test_a_download_says_which_bytes_it_is(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"hello")
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/o/data?alt=media"
    headers = requests.get(url, timeout=10).headers
    assert headers["x-goog-generation"] == str(blob.generation)
    assert "crc32c=mnG7TA==" in headers["x-goog-hash"]


def test_a_list_folds_folders_and_comes_in_pages(cloud):
    bucket = cloud.bucket()
    for name in ("a", "b/1", "b/2", "c/d/1", "e"):
        bucket.blob(name).upload_from_string(b"")
    assert [b.name for b in bucket.list_blobs(page_size=2)] == ["a", "b/1", "b/2", "c/d/1", "e"]
    folded = bucket.list_blobs(delimiter="/", page_size=2)
    assert ([b.name for b in folded], folded.prefixes) == (["a", "e"], {"b/", "c/"})
    inner = bucket.list_blobs(prefix="c/", delimiter="/")
    assert ([b.name for b in inner], inner.prefixes) == ([], {"c/d/"})
    assert [b.name for b in bucket.list_blobs(start_offset="b/2", end_offset="e")] == [
        "b/2",
        "c/d/1",
    ]


@pytest.mark.parametrize(
    "name", ["a b", "ä/ö", "a%2Fb", "a?b#c", "a+b&c=d", "\U0001f600", "/lead", "a//b", "a:b"]
)
def test_a_name_of_any_characters_comes_back_as_it_was(cloud, name):
    bucket = cloud.bucket()
    bucket.blob(name).upload_from_string(name.encode())
    assert bucket.blob(name).download_as_bytes() == name.encode()
    assert [b.name for b in bucket.list_blobs()] == [name]
    bucket.blob(name).delete()
    assert not bucket.blob(name).exists()


def test_metadata_is_kept_merged_and_removed(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.metadata = {"a": "1"}
    blob.upload_from_string(b"", content_type="application/jsonl")
    blob.metadata = {"b": "2"}
    blob.patch()
    found = bucket.get_blob("data")
    assert (found.metadata, found.metageneration, found.content_type) == (
        {"a": "1", "b": "2"},
        2,
        "application/jsonl",
    )


def test_links_are_local_and_absolute(cloud):
    bucket = cloud.bucket()
    blob = bucket.blob("a/b")
    blob.upload_from_string(b"x")
    assert blob.media_link.startswith(cloud.addresses.storage)
    assert requests.get(blob.media_link, timeout=10).content == b"x"


def test_a_bucket_keeps_its_settings_and_its_identity(cloud):
    bucket = cloud.bucket(versioned=True)
    bucket.labels = {"a": "b"}
    bucket.patch()
    found = cloud.client().get_bucket(bucket.name)
    assert (found.labels, found.versioning_enabled, found.metageneration) == ({"a": "b"}, True, 2)
    assert found.project_number and found.time_created == bucket.time_created
    with pytest.raises(google_errors.Conflict):
        cloud.client().create_bucket(bucket.name)


def test_a_bucket_goes_only_when_it_is_empty(cloud):
    bucket = cloud.bucket()
    bucket.blob("a").upload_from_string(b"")
    with pytest.raises(google_errors.Conflict):
        bucket.delete()
    bucket.blob("a").delete()
    bucket.delete()
    assert not bucket.exists()


def test_a_policy_read_before_somebody_elses_change_cannot_be_written(cloud):
    bucket, reader = cloud.bucket(), cloud.account()
    mine = bucket.get_iam_policy(requested_policy_version=3)
    cloud.grant(bucket, "roles/storage.objectViewer", reader)
    mine.bindings.append(
        {"role": "roles/storage.objectAdmin", "members": {f"serviceAccount:{reader}"}}
    )
    with pytest.raises(google_errors.PreconditionFailed, match="stale"):
        bucket.set_iam_policy(mine)


def test_a_policy_with_conditions_is_not_shown_to_who_would_not_see_them(cloud):
    bucket, reader = cloud.bucket(), cloud.account()
    cloud.grant(bucket, "roles/storage.objectViewer", reader, 'resource.name.startsWith("x")')
    with pytest.raises(google_errors.BadRequest, match="version"):
        bucket.get_iam_policy(requested_policy_version=1)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ({"role": "objectViewer", "members": ["user:a@b.c"]}, "does not exist"),
        ({"role": "roles/storage.nothing", "members": ["user:a@b.c"]}, "does not exist"),
        ({"role": "roles/storage.objectViewer", "members": ["a@b.c"]}, "member"),
        ({"role": "roles/storage.objectViewer", "members": ["user:not-an-email"]}, "member"),
    ],
)
def test_a_malformed_policy_is_refused(cloud, binding, words):
    bucket = cloud.bucket()
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/iam"
    answer = requests.put(url, data=json.dumps({"version": 3, "bindings": [binding]}), timeout=10)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_conditions_need_version_3_and_uniform_access(cloud):
    binding = {
        "role": "roles/storage.objectViewer",
        "members": ["user:a@b.c"],
        "condition": {"title": "t", "expression": "true"},
    }
    for bucket, version in ((cloud.bucket(), 1), (cloud.bucket(uniform=False), 3)):
        url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/iam"
        body = json.dumps({"version": version, "bindings": [binding]})
        assert requests.put(url, data=body, timeout=10).status_code == 400


def test_public_access_prevention_refuses_everybody(cloud):
    bucket = cloud.bucket()
    bucket.iam_configuration.public_access_prevention = "enforced"
    bucket.patch()
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {"allUsers"}})
    with pytest.raises(google_errors.PreconditionFailed, match="public access prevention"):
        bucket.set_iam_policy(policy)


def test_a_notification_is_published_with_the_object_that_it_tells_of(cloud):
    topic = f"projects/platform-project/topics/{cloud.name('topic')}"
    subscription = topic.replace("topics", "subscriptions")

    def prepare(inside):
        inside.pubsub.ensure_topic(topic)
        inside.pubsub.ensure_subscription(subscription, topic)
        agent = inside.projects.storage_agent("customer-project")
        inside.iam.policies.grant(topic, "roles/pubsub.publisher", f"serviceAccount:{agent}")

    cloud.do(prepare)
    bucket = cloud.bucket()
    notification = bucket.notification(
        topic.rpartition("/")[2],
        topic_project="platform-project",
        event_types=["OBJECT_FINALIZE"],
        payload_format="JSON_API_V1",
    )
    notification.create()
    assert [n.notification_id for n in bucket.list_notifications()] == ["1"]
    blob = bucket.blob("data/a.jsonl")
    blob.upload_from_string(b"x")
    blob.delete()
    (message,) = cloud.pull(subscription)
    assert message.attributes["eventType"] == "OBJECT_FINALIZE"
    assert message.attributes["objectGeneration"] == str(blob.generation)
    assert json.loads(message.data)["name"] == "data/a.jsonl"


def test_a_notification_needs_a_topic_that_cloud_storage_may_publish_to(cloud):
    topic = f"projects/platform-project/topics/{cloud.name('topic')}"
    bucket = cloud.bucket()
    notification = bucket.notification(topic.rpartition("/")[2], topic_project="platform-project")
    with pytest.raises(google_errors.BadRequest, match="not found"):
        notification.create()
    cloud.do(lambda inside: inside.pubsub.ensure_topic(topic))
    with pytest.raises(google_errors.BadRequest, match="does not have permission"):
        notification.create()


def test_everything_is_there_again_after_a_restart(own_cloud):
    cloud = own_cloud()
    bucket, reader = cloud.bucket(versioned=True), cloud.account()
    bucket.blob("data").upload_from_string(b"kept")
    cloud.grant(bucket, "roles/storage.objectViewer", reader)
    token = cloud.token(reader)
    cloud.restart()
    assert cloud.client(token).bucket(bucket.name).blob("data").download_as_bytes() == b"kept"


def test_many_downloads_at_once_are_each_right(cloud):
    bucket = cloud.bucket()
    blobs = [bucket.blob(f"part-{n}") for n in range(8)]
    for number, blob in enumerate(blobs):
        blob.upload_from_string(bytes([number]) * MIB)
    streams = [(blob, io.BytesIO()) for blob in blobs]
    transfer_manager.download_many(
        streams, worker_type=transfer_manager.THREAD, raise_exception=True
    )
    assert [stream.getvalue()[0] for _, stream in streams] == list(range(8))
