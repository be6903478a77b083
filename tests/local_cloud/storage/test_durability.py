"""What was answered is there again after a restart, and nothing is ever there by half."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import requests
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

MIB = 2**20


def test_everything_is_there_again_after_a_restart(own_cloud):
    cloud = own_cloud()
    bucket, reader = cloud.bucket(versioned=True), cloud.account()
    bucket.blob("data").upload_from_string(b"kept")
    cloud.grant(bucket, "roles/storage.objectViewer", reader)
    token = cloud.token(reader)
    cloud.restart()
    assert cloud.client(token).bucket(bucket.name).blob("data").download_as_bytes() == b"kept"


def test_generations_go_on_growing_whatever_the_clock_does(own_cloud):
    cloud = own_cloud()
    blob = cloud.bucket().blob("data")
    written = []
    for hours in (0, -2, -2, 4):
        cloud.clock.advance(hours=hours)
        blob.upload_from_string(b"")
        written.append(blob.generation)
        cloud.restart()
    assert written == sorted(set(written))


class Process:
    """A local cloud that can be killed."""

    def __init__(self, directory: Path) -> None:
        command = [sys.executable, str(Path(__file__).parent / "serve.py"), str(directory)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self._process.stdout.readline().strip()

    def bucket(self) -> storage.Bucket:
        client = storage.Client(
            project="customer-project",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.url},
        )
        return client.bucket("bucket")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.mark.parametrize("num_answered", [1, 2, 3])
def test_a_kill_in_the_midst_of_writing_leaves_an_object_whole(tmp_path, own_cloud, num_answered):
    """One writer overwrites without end; the server dies at whatever it is doing then."""
    process = Process(tmp_path)
    process.bucket().create()
    answered, is_dead = [], threading.Event()
    enough = threading.Event()

    def write_without_end():
        path = f"{process.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=data"
        while not is_dead.is_set():
            data = bytes([len(answered) % 256]) * (2 * MIB)
            try:
                answered.append(
                    int(requests.post(path, data=data, timeout=10).json()["generation"])
                )
            except requests.RequestException:
                return
            if len(answered) > num_answered:
                enough.set()

    writer = threading.Thread(target=write_without_end)
    writer.start()
    assert enough.wait(30)
    process.kill()
    is_dead.set()
    writer.join()
    (found,) = own_cloud().client().bucket("bucket").list_blobs()
    data = found.download_as_bytes(checksum="md5")
    assert len(data) == 2 * MIB and len(set(data)) == 1
    assert found.generation >= answered[-1]
    assert not any((tmp_path / "storage" / "uploads").iterdir())
