"""`gcloud storage` does with a local bucket what it does with any other."""

import os
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")


@pytest.fixture
def gcloud(cloud, tmp_path):
    environment = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{cloud.addresses.storage}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "customer-project",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    def run(*arguments: str) -> str:
        command = ["gcloud", "storage", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_objects_are_moved_composed_restored_and_deleted_with_their_bucket(cloud, gcloud, tmp_path):
    name = cloud.name("bucket")
    gcloud("buckets", "create", f"gs://{name}", "--uniform-bucket-level-access")
    (tmp_path / "part").write_text("part\n")
    gcloud("cp", str(tmp_path / "part"), f"gs://{name}/in/")
    gcloud("mv", f"gs://{name}/in/part", f"gs://{name}/moved")
    gcloud("objects", "compose", f"gs://{name}/moved", f"gs://{name}/moved", f"gs://{name}/both")
    assert gcloud("cat", f"gs://{name}/both") == "part\npart\n"
    gcloud("rm", f"gs://{name}/both")
    (deleted,) = gcloud("ls", "--soft-deleted", f"gs://{name}/both").split()
    gcloud("restore", deleted)
    assert gcloud("ls", f"gs://{name}").split() == [f"gs://{name}/both", f"gs://{name}/moved"]
    gcloud("rm", "-r", f"gs://{name}")
    assert not cloud.client().bucket(name).exists()


def test_settings_are_shown_and_changed(cloud, gcloud):
    bucket = cloud.bucket()
    bucket.blob("data").upload_from_string(b"")
    url = f"gs://{bucket.name}"
    gcloud("buckets", "update", url, "--versioning", "--update-labels=a=b", "--retention-period=1d")
    bucket.reload()
    assert (bucket.versioning_enabled, bucket.labels, bucket.retention_period) == (
        True,
        {"a": "b"},
        86_400,
    )
    assert "versioning_enabled: true" in gcloud("buckets", "describe", url)
    gcloud("objects", "update", f"{url}/data", "--custom-metadata=key=value", "--temporary-hold")
    data = bucket.get_blob("data")
    assert (data.metadata, data.temporary_hold) == ({"key": "value"}, True)
