"""Bytes come out as they went in: whole, in spans, and what they hash to with them."""

import gzip
import io
import os
import zlib

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.cloud.storage import transfer_manager

MIB = 2**20


def media(bucket, name):
    return f"/storage/v1/b/{bucket.name}/o/{name}?alt=media"


@pytest.fixture
def digits(cloud):
    bucket = cloud.bucket()
    bucket.blob("digits").upload_from_string(b"0123456789")
    return media(bucket, "digits")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 0, b"0"), (2, 4, b"234"), (7, None, b"789"), (0, 99, b"0123456789"), (9, 9, b"9")],
)
def test_a_range_is_exactly_what_was_asked_for(cloud, start, end, expected):
    blob = cloud.bucket().blob("digits")
    blob.upload_from_string(b"0123456789")
    assert blob.download_as_bytes(start=start, end=end, raw_download=True) == expected


@pytest.mark.parametrize(
    ("header", "content", "content_range"),
    [
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=0-0", b"0", "bytes 0-0/10"),
    ],
)
def test_a_span_says_where_it_lies(digits, http, header, content, content_range):
    answer = http("GET", digits, headers={"Range": header})
    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["content-range"] == content_range


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=5-3", "bytes=-", "lines=1-2"])
def test_a_range_that_is_none_or_several_gets_the_whole(digits, http, header):
    answer = http("GET", digits, headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, b"0123456789")


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
def test_beyond_the_end_lies_nothing(digits, http, header):
    answer = http("GET", digits, headers={"Range": header})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */10")
    assert answer.json()["error"]["errors"][0]["reason"] == "requestedRangeNotSatisfiable"


def test_a_download_says_which_bytes_it_is(cloud, http):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"hello")
    headers = http("GET", media(bucket, "data")).headers
    blob.reload()
    assert headers["x-goog-generation"] == str(blob.generation)
    assert headers["x-goog-metageneration"] == "1"
    assert headers["x-goog-hash"] == "crc32c=mnG7TA==,md5=XUFAKrxLKna5cZ2REBfFkg=="
    assert headers["x-goog-stored-content-encoding"] == "identity"
    assert headers["x-goog-stored-content-length"] == "5"
    assert headers["x-goog-storage-class"] == "STANDARD"
    assert headers["etag"] == f'"{blob.etag}"'


def test_whoever_only_looks_gets_the_headers(digits, http):
    answer = http("HEAD", digits)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == "10"


def test_a_damaged_download_would_be_noticed_by_either_checksum(cloud):
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(os.urandom(MIB))
    for checksum in ("md5", "crc32c"):
        assert len(blob.download_as_bytes(checksum=checksum)) == MIB


def test_a_reading_that_began_before_an_overwrite_ends_as_it_began(cloud, http):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    old = os.urandom(8 * MIB)
    blob.upload_from_string(old)
    url = f"{http.base_url}{media(bucket, 'data')}"
    with requests.get(url, stream=True, timeout=10) as reading:
        first = next(reading.iter_content(MIB))
        blob.upload_from_string(b"new")
        assert first + b"".join(reading.iter_content(MIB)) == old


def test_what_has_not_changed_is_not_sent_again(cloud, http):
    bucket = cloud.bucket()
    blob = bucket.blob("data")
    blob.upload_from_string(b"hello")
    blob.reload()
    for condition in (
        {"headers": {"If-None-Match": f'"{blob.etag}"'}},
        {"params": {"ifGenerationNotMatch": blob.generation}},
        {"params": {"ifMetagenerationNotMatch": 1}},
    ):
        answer = http("GET", media(bucket, "data"), **condition)
        assert (answer.status_code, answer.content) == (304, b"")
    assert http("GET", media(bucket, "data"), headers={"If-None-Match": '"x"'}).status_code == 200


def test_an_etag_that_is_not_the_objects_is_a_precondition_that_fails(cloud):
    blob = cloud.bucket().blob("data")
    blob.upload_from_string(b"hello")
    blob.reload()
    assert blob.download_as_bytes(if_etag_match=blob.etag) == b"hello"
    with pytest.raises(google_errors.PreconditionFailed):
        blob.download_as_bytes(if_etag_match="other")
    with pytest.raises(google_errors.PreconditionFailed):
        blob.reload(if_etag_match="other")


# --- gzip -----------------------------------------------------------------------------------------

TEXT = b"row\n" * 100_000


@pytest.fixture
def zipped(cloud):
    blob = cloud.bucket().blob("rows")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(TEXT), content_type="text/plain")
    return blob


def test_gzip_is_sent_as_it_is_to_whoever_reads_it(zipped, http):
    answer = http("GET", media(zipped.bucket, "rows"), headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == TEXT  # requests decompressed it
    assert zlib.decompress(zipped.download_as_bytes(raw_download=True), 31) == TEXT
    assert zipped.download_as_bytes() == TEXT


def test_gzip_is_decompressed_for_whoever_does_not_read_it(zipped, http):
    for headers in ({}, {"Range": "bytes=0-3"}):
        answer = http(
            "GET", media(zipped.bucket, "rows"), headers={"Accept-Encoding": "identity", **headers}
        )
        assert (answer.status_code, answer.content) == (200, TEXT)
        assert "content-encoding" not in answer.headers
        assert answer.headers["x-goog-stored-content-encoding"] == "gzip"
        assert answer.headers["x-guploader-response-body-transformations"] == "gunzipped"
        assert answer.headers["warning"].startswith("214")


def test_gzip_of_several_members_is_decompressed_to_its_end(cloud, http):
    blob = cloud.bucket().blob("rows")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    answer = http("GET", media(blob.bucket, "rows"), headers={"Accept-Encoding": "identity"})
    assert answer.content == b"one\ntwo\n"


def test_gzip_that_must_not_be_transformed_is_not(zipped, http):
    zipped.cache_control = "no-transform"
    zipped.patch()
    answer = http(
        "GET",
        media(zipped.bucket, "rows"),
        headers={"Accept-Encoding": "identity", "Range": "bytes=0-1"},
        stream=True,
    )
    assert (answer.status_code, answer.raw.read()) == (206, b"\x1f\x8b")


# --- several at once ------------------------------------------------------------------------------


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


def test_one_object_is_downloaded_in_pieces_at_once(cloud, tmp_path):
    data = os.urandom(5 * MIB + 3)
    blob = cloud.bucket().blob("large")
    blob.upload_from_string(data)
    transfer_manager.download_chunks_concurrently(
        blob, tmp_path / "large", chunk_size=MIB, worker_type=transfer_manager.THREAD
    )
    assert (tmp_path / "large").read_bytes() == data
