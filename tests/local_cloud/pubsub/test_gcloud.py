"""The gcloud command line, which speaks REST; it needs nothing but the address."""

import json
import os
import shutil
import subprocess

import pytest


@pytest.fixture
def gcloud(cloud, tmp_path):
    environment = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"{cloud.serve_rest()}/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_PROJECT": "proj-local",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }

    def run(*arguments, fails=False):
        command = ["gcloud", "pubsub", *arguments, "--format=json"]
        done = subprocess.run(
            command, env=environment, capture_output=True, check=False, text=True, timeout=60
        )
        assert bool(done.returncode) == fails, done.stderr
        return done.stderr if fails else json.loads(done.stdout or "null")

    return run


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_makes_publishes_pulls_changes_and_lists(gcloud, names):
    assert gcloud("topics", "create", "drops")[0]["name"] == names.topic()
    gcloud(
        *("subscriptions", "create", "register", "--topic=drops", "--ack-deadline=20"),
        *("--message-filter", 'attributes.kind = "new"'),
    )
    sent = gcloud("topics", "publish", "drops", "--message=new", "--attribute=kind=new")
    (received,) = gcloud("subscriptions", "pull", "register", "--auto-ack", "--limit=5")
    assert received["message"]["messageId"] == sent["messageIds"][0]
    assert received["message"]["data"] == "bmV3"
    gcloud("subscriptions", "update", "register", "--ack-deadline=30")
    (listed,) = gcloud("subscriptions", "list")
    assert (listed["name"], listed["ackDeadlineSeconds"]) == (names.subscription(), 30)
    missing = gcloud("topics", "delete", "none", fails=True)
    assert "Resource not found (resource=none)" in missing
