"""Clients of the JSON API that reach for the XML API find what they reach for."""

import hashlib
import os

import pytest
import requests
from google.cloud.storage import transfer_manager
from google.cloud.storage._media.requests import XMLMPUContainer, XMLMPUPart

MIB = 2**20
PART = 5 * MIB


def upload_concurrently(path, blob, **options):
    transfer_manager.upload_chunks_concurrently(
        path, blob, chunk_size=PART, worker_type=transfer_manager.THREAD, **options
    )


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(os.urandom(2 * PART + 3))
    return path


@pytest.mark.parametrize("checksum", ["md5", "crc32c"])
def test_one_file_is_uploaded_in_parts_at_once(cloud, large, checksum):
    blob = cloud.bucket().blob("a b/ä")
    blob.metadata = {"key": "value"}
    blob.cache_control = "no-store"
    upload_concurrently(large, blob, content_type="text/plain", checksum=checksum)
    found = blob.bucket.get_blob("a b/ä")
    assert found.download_as_bytes(checksum="crc32c") == large.read_bytes()
    assert (found.content_type, found.metadata, found.cache_control, found.md5_hash) == (
        "text/plain",
        {"key": "value"},
        "no-store",
        None,
    )


def test_an_upload_in_parts_needs_the_right_to_create_and_to_overwrite(cloud, large):
    bucket, somebody = cloud.bucket(), cloud.account()
    theirs = cloud.client(cloud.token(somebody)).bucket(bucket.name)
    with pytest.raises(Exception, match="403"):
        upload_concurrently(large, theirs.blob("data"))
    cloud.grant(bucket, "roles/storage.objectCreator", somebody)
    upload_concurrently(large, theirs.blob("data"))
    with pytest.raises(Exception, match="403"):
        upload_concurrently(large, theirs.blob("data"))


@pytest.fixture
def begun(cloud, large):
    """A multipart upload with its first part, and what can be done to it."""
    bucket = cloud.bucket()
    session, url = cloud.client()._http, f"{cloud.addresses.storage}/{bucket.name}/data"
    container = XMLMPUContainer(url, str(large), headers={})
    container.initiate(session, "text/plain")
    part = XMLMPUPart(
        url, container.upload_id, str(large), start=0, end=PART, part_number=1, headers={}
    )
    part.upload(session)
    return bucket, url, container, part


def complete(url, upload_id, *parts):
    listed = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in parts
    )
    body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>"
    return requests.post(f"{url}?uploadId={upload_id}", data=body, timeout=30)


def test_parts_are_joined_by_their_numbers(begun, large):
    bucket, url, container, part = begun
    other = requests.put(
        f"{url}?partNumber=7&uploadId={container.upload_id}", data=b"end", timeout=10
    )
    assert other.headers["etag"] == f'"{hashlib.md5(b"end", usedforsecurity=False).hexdigest()}"'
    assert not bucket.blob("data").exists()
    made = complete(url, container.upload_id, (1, part.etag), (7, other.headers["etag"]))
    assert made.status_code == 200 and "CompleteMultipartUploadResult" in made.text
    assert bucket.blob("data").download_as_bytes() == large.read_bytes()[:PART] + b"end"
    assert complete(url, container.upload_id, (1, part.etag)).status_code == 404


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([], "InvalidPartOrder"),
        ([(1, '"0123"')], "InvalidPart"),
        ([(1, None), (2, '"x"')], "InvalidPart"),
        ([(1, None), (1, None)], "InvalidPartOrder"),
        ([(9, '"small"'), (1, None)], "InvalidPartOrder"),
    ],
)
def test_a_list_of_other_parts_is_refused(begun, parts, code):
    bucket, url, container, part = begun
    answer = complete(url, container.upload_id, *[(n, etag or part.etag) for n, etag in parts])
    assert answer.status_code == 400 and f"<Code>{code}</Code>" in answer.text
    assert not bucket.blob("data").exists()


def test_only_the_last_part_may_be_small(begun):
    _, url, container, _ = begun
    etags = {}
    for number in (2, 3):
        answer = requests.put(
            f"{url}?partNumber={number}&uploadId={container.upload_id}", data=b"small", timeout=10
        )
        etags[number] = answer.headers["etag"]
    answer = complete(url, container.upload_id, (2, etags[2]), (3, etags[3]))
    assert "EntityTooSmall" in answer.text


def test_an_upload_that_is_given_up_leaves_nothing(begun, cloud):
    bucket, url, container, part = begun
    container.cancel(cloud.client()._http)
    assert complete(url, container.upload_id, (1, part.etag)).status_code == 404
    assert not bucket.blob("data").exists()


def test_a_part_that_is_damaged_is_refused(begun):
    _, url, container, _ = begun
    answer = requests.put(
        f"{url}?partNumber=2&uploadId={container.upload_id}",
        data=b"bytes",
        headers={"x-goog-hash": "crc32c=AAAAAA=="},
        timeout=10,
    )
    assert answer.status_code == 400 and "<Code>BadDigest</Code>" in answer.text


def test_parts_outlive_a_restart(own_cloud, large):
    cloud = own_cloud()
    bucket = cloud.bucket()
    url = f"{cloud.addresses.storage}/{bucket.name}/data"
    container = XMLMPUContainer(url, str(large), headers={})
    container.initiate(cloud.client()._http, "text/plain")
    put = requests.put(
        f"{url}?partNumber=1&uploadId={container.upload_id}", data=b"kept", timeout=10
    )
    cloud.restart()
    assert complete(url, container.upload_id, (1, put.headers["etag"])).status_code == 200
    assert cloud.client().bucket(bucket.name).blob("data").download_as_bytes() == b"kept"


# --- plain objects --------------------------------------------------------------------------------


def test_an_object_is_put_got_looked_at_and_deleted(cloud, http):
    bucket = cloud.bucket()
    path = f"/{bucket.name}/folder/a%20b"
    headers = {
        "Content-Type": "text/plain",
        "x-goog-meta-key": "value",
        "x-goog-storage-class": "NEARLINE",
    }
    assert http("PUT", path, data=b"hello", headers=headers).status_code == 200
    found = bucket.get_blob("folder/a b")
    assert (found.metadata, found.storage_class) == ({"key": "value"}, "NEARLINE")
    got = http("GET", path)
    assert (got.content, got.headers["x-goog-meta-key"]) == (b"hello", "value")
    assert got.headers["etag"] == f'"{hashlib.md5(b"hello", usedforsecurity=False).hexdigest()}"'
    looked = http("HEAD", path)
    assert (looked.headers["content-length"], looked.content) == ("5", b"")
    assert http("GET", path, headers={"Range": "bytes=1-2"}).content == b"el"
    assert http("DELETE", path).status_code == 204
    missing = http("GET", path)
    assert missing.status_code == 404 and "<Code>NoSuchKey</Code>" in missing.text


def test_a_plain_put_minds_checksums_and_generations(cloud, http):
    path = f"/{cloud.bucket().name}/data"
    for headers, code in (
        ({"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "BadDigest"),
        ({"x-goog-if-generation-match": "5"}, "PreconditionFailed"),
    ):
        assert f"<Code>{code}</Code>" in http("PUT", path, data=b"x", headers=headers).text
    absent = {"x-goog-if-generation-match": "0"}
    assert http("PUT", path, data=b"x", headers=absent).status_code == 200
    assert http("PUT", path, data=b"x", headers=absent).status_code == 412


def test_who_may_not_is_told_so_in_xml(cloud, http):
    bucket, nobody = cloud.bucket(), cloud.account()
    headers = {"Authorization": f"Bearer {cloud.token(nobody)}"}
    answer = http("GET", f"/{bucket.name}/data", headers=headers)
    assert answer.status_code == 403 and "<Code>AccessDenied</Code>" in answer.text
    assert "storage.objects.get" in answer.text


@pytest.mark.parametrize("query", ["?acl", "?tagging", "?uploadId=x"])
def test_what_the_xml_api_does_not_offer_here_is_refused(cloud, http, query):
    answer = http("GET", f"/{cloud.bucket().name}/data{query}")
    assert answer.status_code == 501 and "<Code>NotImplemented</Code>" in answer.text
