"""Bytes go in by every way that a client has, whole or not at all."""

import base64
import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import google_crc32c
import pytest
import requests
from google.api_core import exceptions as google_errors

MIB = 2**20
PIECE = 256 * 1024


def start_session(bucket, name, size=2 * PIECE):
    return bucket.blob(name).create_resumable_upload_session(size=size)


def send(url, data, content_range):
    return requests.put(url, data=data, headers={"Content-Range": content_range}, timeout=10)


def begin_piece(url, data, total):
    """A connection that has announced a piece of `total` bytes, and sent the first of them."""
    target = urlsplit(url)
    connection = socket.create_connection((target.hostname, target.port))
    connection.sendall(
        f"PUT {target.path}?{target.query} HTTP/1.1\r\nHost: {target.netloc}\r\n"
        f"Content-Range: bytes 0-{total - 1}/{total}\r\n"
        f"Content-Length: {total}\r\n\r\n".encode()
    )
    connection.sendall(data)
    return connection


def num_kept(url, total):
    """How much a session has, once it has something."""
    while True:
        asked = send(url, b"", f"bytes */{total}")
        if "range" in asked.headers:
            return int(asked.headers["range"].rpartition("-")[2]) + 1


def test_what_is_uploaded_is_downloaded(cloud):
    blob = cloud.bucket().blob("a.txt")
    blob.upload_from_string(b"hello", content_type="text/plain")
    assert blob.download_as_bytes() == b"hello"
    blob.reload()
    assert (blob.size, blob.content_type, blob.crc32c) == (5, "text/plain", "mnG7TA==")


def test_an_object_may_be_empty(cloud):
    bucket = cloud.bucket()
    bucket.blob("by multipart").upload_from_string(b"")
    resumed = bucket.blob("by resumable", chunk_size=MIB)
    resumed.upload_from_file(io.BytesIO(b""))
    assert [blob.download_as_bytes() for blob in bucket.list_blobs()] == [b"", b""]


@pytest.mark.parametrize("size", [MIB, 3 * MIB + 17])
def test_a_large_upload_goes_in_pieces_and_comes_out_whole(cloud, size):
    data = os.urandom(size)
    blob = cloud.bucket().blob("large", chunk_size=MIB)
    blob.upload_from_file(io.BytesIO(data), size=len(data), checksum="crc32c")
    assert blob.download_as_bytes(checksum="md5") == data


def test_a_stream_of_unknown_length_is_taken(cloud):
    data = os.urandom(2 * MIB + 5)
    blob = cloud.bucket().blob("streamed", chunk_size=MIB)
    with blob.open("wb") as stream:
        stream.write(data)
    assert blob.download_as_bytes() == data


def test_a_media_upload_says_its_type_and_its_encoding(cloud, http):
    bucket = cloud.bucket()
    made = http(
        "POST",
        f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=a&contentEncoding=identity",
        data=b"text",
        headers={"Content-Type": "text/plain"},
    )
    assert (made.json()["contentType"], made.json()["contentEncoding"]) == (
        "text/plain",
        "identity",
    )


def test_a_session_says_how_far_it_is(cloud):
    url = start_session(cloud.bucket(), "data")
    fresh = send(url, b"", f"bytes */{2 * PIECE}")
    assert (fresh.status_code, fresh.headers.get("range")) == (308, None)
    first = send(url, b"a" * PIECE, f"bytes 0-{PIECE - 1}/{2 * PIECE}")
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{PIECE - 1}")
    asked = send(url, b"", f"bytes */{2 * PIECE}")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{PIECE - 1}")
    last = send(url, b"b" * PIECE, f"bytes {PIECE}-{2 * PIECE - 1}/{2 * PIECE}")
    assert (last.status_code, last.json()["size"]) == (200, str(2 * PIECE))


def test_whoever_lost_the_last_answer_is_told_it_again(cloud):
    url = start_session(cloud.bucket(), "data", size=3)
    made = send(url, b"abc", "bytes 0-2/3").json()
    asked = send(url, b"", "bytes */3")
    assert (asked.status_code, asked.json()["generation"]) == (200, made["generation"])


def test_a_session_is_over_once_it_is_cancelled(cloud):
    bucket = cloud.bucket()
    url = start_session(bucket, "data")
    send(url, b"a" * PIECE, f"bytes 0-{PIECE - 1}/{2 * PIECE}")
    assert requests.delete(url, timeout=10).status_code == 499
    assert send(url, b"", "bytes */*").status_code == 404
    assert not bucket.blob("data").exists()


def test_an_upload_that_was_cut_off_goes_on_where_it_was(cloud):
    bucket = cloud.bucket()
    data = os.urandom(2 * PIECE)
    url = start_session(bucket, "data")
    begin_piece(url, data[: PIECE + 100], 2 * PIECE).close()
    kept = num_kept(url, 2 * PIECE)
    last = send(url, data[kept:], f"bytes {kept}-{2 * PIECE - 1}/{2 * PIECE}")
    assert last.status_code == 200
    assert bucket.blob("data").download_as_bytes() == data


def test_a_connection_that_hangs_does_not_hold_its_upload(cloud):
    bucket = cloud.bucket()
    data = os.urandom(2 * PIECE)
    url = start_session(bucket, "data")
    with begin_piece(url, data[:1000], 2 * PIECE) as hanging:
        kept = num_kept(url, 2 * PIECE)
        rest = send(url, data[kept:], f"bytes {kept}-{2 * PIECE - 1}/{2 * PIECE}")
        assert rest.status_code == 200
        hanging.sendall(b"x" * PIECE)
    assert bucket.blob("data").download_as_bytes() == data


def test_bytes_that_are_sent_twice_are_kept_once(cloud):
    bucket = cloud.bucket()
    url = start_session(bucket, "data", size=PIECE + 3)
    send(url, b"a" * PIECE, f"bytes 0-{PIECE - 1}/{PIECE + 3}")
    again = send(url, b"a" * PIECE + b"end", f"bytes 0-{PIECE + 2}/{PIECE + 3}")
    assert again.status_code == 200
    assert bucket.blob("data").download_as_bytes() == b"a" * PIECE + b"end"


def test_a_piece_that_leaves_a_gap_is_refused(cloud):
    url = start_session(cloud.bucket(), "data")
    assert send(url, b"end", f"bytes {PIECE}-{PIECE + 2}/{PIECE + 3}").status_code == 503


def test_nobody_sees_an_upload_before_its_last_byte(cloud):
    bucket = cloud.bucket()
    url = start_session(bucket, "data")
    send(url, b"a" * PIECE, f"bytes 0-{PIECE - 1}/{2 * PIECE}")
    assert not bucket.blob("data").exists()
    assert list(bucket.list_blobs()) == []


@pytest.mark.parametrize("checksum", ["crc32c=AAAAAA==", "md5=AAAAAAAAAAAAAAAAAAAAAA=="])
def test_bytes_that_are_not_what_the_sender_meant_are_refused(cloud, http, checksum):
    bucket = cloud.bucket()
    answer = http(
        "POST",
        f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=data",
        data=b"data",
        headers={"X-Goog-Hash": checksum},
    )
    assert answer.status_code == 400
    assert "does not match" in answer.json()["error"]["message"]
    assert not bucket.blob("data").exists()


@pytest.mark.parametrize("field", ["md5_hash", "crc32c"])
def test_a_checksum_in_the_metadata_is_held_against_the_bytes(cloud, field):
    digests = {
        "md5_hash": hashlib.md5(b"right", usedforsecurity=False).digest(),
        "crc32c": google_crc32c.Checksum(b"right").digest(),
    }
    bucket = cloud.bucket()
    right, wrong = bucket.blob("right"), bucket.blob("wrong")
    for blob in (right, wrong):
        setattr(blob, field, base64.b64encode(digests[field]).decode())
    right.upload_from_string(b"right", checksum=None)
    with pytest.raises(google_errors.BadRequest, match="does not match"):
        wrong.upload_from_string(b"wrong", checksum=None)
    assert not wrong.exists()


def test_a_resumable_upload_with_a_wrong_checksum_leaves_nothing(cloud):
    bucket = cloud.bucket()
    url = start_session(bucket, "data", size=4)
    headers = {"Content-Range": "bytes 0-3/4", "X-Goog-Hash": "crc32c=AAAAAA=="}
    assert requests.put(url, data=b"data", headers=headers, timeout=10).status_code == 400
    assert not bucket.blob("data").exists()


def test_an_upload_that_ends_in_the_middle_leaves_nothing(cloud, http):
    bucket = cloud.bucket()
    target = urlsplit(http.base_url)
    with socket.create_connection((target.hostname, target.port)) as connection:
        connection.sendall(
            f"POST /upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=half HTTP/1.1\r\n"
            f"Host: {target.netloc}\r\nContent-Length: {MIB}\r\n\r\n".encode()
        )
        connection.sendall(b"x" * PIECE)
    assert not bucket.blob("half").exists()


def test_create_if_absent_has_one_winner_among_sixteen(cloud):
    bucket, outcomes = cloud.bucket(), []
    ready = threading.Barrier(16)

    def try_to_create(number):
        blob = cloud.client().bucket(bucket.name).blob("manifest.json")
        ready.wait()
        try:
            blob.upload_from_string(str(number), if_generation_match=0, retry=None)
            outcomes.append(number)
        except google_errors.PreconditionFailed:
            pass

    threads = [threading.Thread(target=try_to_create, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(n).encode() for n in outcomes] == [bucket.blob("manifest.json").download_as_bytes()]


def test_a_resumable_upload_goes_on_after_a_restart(own_cloud):
    cloud = own_cloud()
    bucket = cloud.bucket()
    url = start_session(bucket, "resumed")
    half = b"a" * PIECE
    first = send(url, half, f"bytes 0-{PIECE - 1}/{2 * PIECE}")
    assert (first.status_code, first.headers["range"]) == (308, f"bytes=0-{PIECE - 1}")
    cloud.restart()
    asked = send(url, b"", f"bytes */{2 * PIECE}")
    assert (asked.status_code, asked.headers["range"]) == (308, f"bytes=0-{PIECE - 1}")
    assert send(url, half, f"bytes {PIECE}-{2 * PIECE - 1}/{2 * PIECE}").status_code == 200
    assert bucket.blob("resumed").download_as_bytes() == half * 2


def test_a_session_dies_of_age(own_cloud):
    cloud = own_cloud()
    url = start_session(cloud.bucket(), "data")
    cloud.clock.advance(days=7, seconds=1)
    cloud.do(lambda inside: inside.storage.forget_expired())
    assert send(url, b"", "bytes */*").status_code == 404


FULL = """
import resource, sys
from pathlib import Path
from sublet.local.storage.blobs import Blobs

data = bytes(range(250)) * 8
writer = Blobs(Path(sys.argv[1])).writer("upload")
resource.setrlimit(resource.RLIMIT_FSIZE, (1100, resource.RLIM_INFINITY))
try:
    writer.write(data[:1000])
    writer.write(data[1000:])
except OSError:
    assert writer.size == 1100
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
writer.write(data[writer.size :])
blob = writer.close()
print(blob.path.read_bytes() == data, blob.crc32c)
"""


def test_an_upload_goes_on_when_there_is_room_again(tmp_path):
    command = [sys.executable, "-c", FULL, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = google_crc32c.Checksum(bytes(range(250)) * 8).digest()
    assert told.split() == ["True", base64.b64encode(expected).decode()]


KILLED = """
import os, signal, sys
from pathlib import Path
from sublet.local.storage.blobs import Blobs

writer = Blobs(Path(sys.argv[1])).writer(sys.argv[2])
writer.write(b"half of what was to come")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_leaves_of_an_upload_is_removed_at_the_next_start(own_cloud, tmp_path):
    cloud = own_cloud()
    bucket = cloud.bucket()
    bucket.blob("whole").upload_from_string(b"whole")
    cloud.stop()
    storage = tmp_path / "storage"
    subprocess.run([sys.executable, "-c", KILLED, str(storage), "half"], check=False)
    assert (storage / "uploads" / "half").exists()
    cloud.start()
    assert not any((storage / "uploads").iterdir())
    assert [blob.name for blob in cloud.client().list_blobs(bucket.name)] == ["whole"]
