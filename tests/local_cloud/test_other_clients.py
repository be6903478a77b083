"""Whichever client drops a file, it starts the chain."""

import os
from pathlib import Path

import pytest
from gcsfs.core import GCSFileSystem
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from local_cloud.gcloud import Gcloud, needs_gcloud
from running_stack import rows

LARGE = os.urandom(9 * 2**20)
REGISTERS_ONLY = {"prefix": "data/"}


def by_google_cloud_storage(storage_url: str, file: Path, bucket: str) -> None:
    options = {"api_endpoint": storage_url}
    client = storage.Client("p", credentials=AnonymousCredentials(), client_options=options)
    client.bucket(bucket).blob("data/train.jsonl").upload_from_filename(str(file))


def by_gcsfs(storage_url: str, file: Path, bucket: str) -> None:
    files = GCSFileSystem(token="anon", endpoint_url=storage_url, skip_instance_cache=True)
    files.put(str(file), f"{bucket}/data/train.jsonl")


def by_gcloud(storage_url: str, file: Path, bucket: str) -> None:
    gcloud = Gcloud(file.parent, storage=storage_url)
    gcloud("storage", "cp", str(file), f"gs://{bucket}/data/train.jsonl")


@pytest.mark.parametrize(
    "drop", [by_google_cloud_storage, by_gcsfs, pytest.param(by_gcloud, marks=needs_gcloud)]
)
def test_a_file_that_any_client_drops_is_verified_and_registered(stack, tmp_path, drop):
    tenant = stack.tenant(watch=REGISTERS_ONLY)
    file = tmp_path / "train.jsonl"
    file.write_bytes(rows())
    drop(stack.variables["STORAGE_EMULATOR_HOST"], file, tenant.bucket_name)
    dataset = tenant.dataset_of(tenant.bucket.get_blob("data/train.jsonl"))
    assert (dataset["state"], dataset["exampleCount"]) == ("READY", "20")


def test_gcsfs_writes_reads_lists_and_removes(cloud, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.addresses.storage)
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
