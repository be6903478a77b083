"""Any client can drop a file: gcsfs, and gcloud where it is installed."""

import os
import shutil
import subprocess

import pytest
from gcsfs.core import GCSFileSystem

LARGE = os.urandom(9 * 2**20)


@pytest.fixture
def environment(cloud, tmp_path, monkeypatch):
    """
    What a second terminal has after `eval "$(sublet local env)"`, and a home without credentials.
    """
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.addresses.storage)
    return {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{cloud.addresses.storage}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "customer-project",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }


def test_gcsfs_writes_reads_lists_and_removes(cloud, environment):
    bucket = cloud.bucket().name
    files = GCSFileSystem(
        token="anon", endpoint_url=cloud.addresses.storage, skip_instance_cache=True
    )
    files.pipe(f"{bucket}/data/small.jsonl", b"small\n")
    with files.open(f"{bucket}/data/large.bin", "wb", block_size=2**20) as large:
        large.write(LARGE)
    assert files.cat(f"{bucket}/data/small.jsonl") == b"small\n"
    assert files.cat(f"{bucket}/data/large.bin") == LARGE
    assert files.ls(f"{bucket}/data") == [f"{bucket}/data/large.bin", f"{bucket}/data/small.jsonl"]
    files.rm(f"{bucket}/data/large.bin")
    assert not files.exists(f"{bucket}/data/large.bin")


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_storage_copies_lists_shows_and_removes(cloud, environment, tmp_path):
    bucket = cloud.bucket().name

    def gcloud(*arguments: str) -> bytes:
        command = ["gcloud", "storage", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, check=True).stdout

    (tmp_path / "small.jsonl").write_bytes(b"small\n")
    (tmp_path / "large.bin").write_bytes(LARGE)
    for name in ("small.jsonl", "large.bin"):
        gcloud("cp", str(tmp_path / name), f"gs://{bucket}/data/")
    listed = gcloud("ls", f"gs://{bucket}/data/").decode().split()
    assert listed == [f"gs://{bucket}/data/large.bin", f"gs://{bucket}/data/small.jsonl"]
    assert gcloud("cat", f"gs://{bucket}/data/small.jsonl") == b"small\n"
    gcloud("cp", f"gs://{bucket}/data/large.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == LARGE
    gcloud("rm", f"gs://{bucket}/data/large.bin")
    assert gcloud("ls", f"gs://{bucket}/data/").decode().split() == listed[1:]
