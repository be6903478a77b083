"""Any project's tests get a local cloud in one line."""

import os
import subprocess
import sys
import textwrap

import psutil
import pytest

TESTS = """
import subprocess, sys
from datetime import timedelta

import pytest
from google.api_core.exceptions import ServiceUnavailable

READ = '''
import google.auth
from google.api_core.exceptions import Forbidden
from google.cloud import storage
credentials, project = google.auth.default()
client = storage.Client(project=project, credentials=credentials)
blob = client.bucket("{bucket}").blob("a")
try:
    print(blob.download_as_bytes(retry=None))
except Forbidden as error:
    print(error.code, flush=True)
input()
print(blob.download_as_bytes(retry=None))
'''


def test_a_bucket_takes_an_object(local_cloud):
    bucket = local_cloud.bucket()
    bucket.blob("a").upload_from_string(b"x")
    assert bucket.blob("a").download_as_bytes() == b"x"


def test_an_identity_may_do_what_it_was_granted_and_nothing_else(local_cloud, tmp_path):
    email, variables = local_cloud.service_account("reader")
    bucket = local_cloud.bucket()
    bucket.blob("a").upload_from_string(b"x")

    command = [sys.executable, "-c", READ.format(bucket=bucket.name)]
    environ = {**local_cloud.variables, **variables, "HOME": str(tmp_path)}
    pipe = subprocess.PIPE
    reader = subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True)
    assert reader.stdout.readline() == "403\\n"
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings.append(
        {"role": "roles/storage.objectViewer", "members": {f"serviceAccount:{email}"}}
    )
    bucket.set_iam_policy(policy)
    assert reader.communicate("granted\\n")[0] == "b'x'\\n"


def test_a_fault_strikes(local_cloud):
    bucket = local_cloud.bucket()
    local_cloud.fault("return-503", on=bucket.name, times=None)
    with pytest.raises(ServiceUnavailable):
        bucket.blob("a").upload_from_string(b"x", retry=None)


def test_and_is_taken_back_after_its_test(local_cloud):
    local_cloud.bucket().blob("a").upload_from_string(b"x", retry=None)


def test_the_clock_moves(local_cloud):
    before = local_cloud.bucket().time_created
    local_cloud.advance(timedelta(days=2))
    assert local_cloud.bucket().time_created - before > timedelta(days=2)


def test_a_wrong_order_is_refused_in_words(local_cloud):
    with pytest.raises(ValueError, match="expected one of"):
        local_cloud.fault("gremlins")
"""


@pytest.fixture
def strangers_project(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sublet.local.pytest_plugin"]\n')
    (tmp_path / "test_theirs.py").write_text(textwrap.dedent(TESTS))
    return tmp_path


def test_one_line_gives_a_project_a_local_cloud_and_leaves_nothing_behind(strangers_project):
    environ = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # strangers have none of ours
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", "base"]
    done = subprocess.run(
        command, cwd=strangers_project, capture_output=True, text=True, env=environ, check=False
    )
    assert "6 passed" in done.stdout, done.stdout + done.stderr
    base = str(strangers_project / "base")
    assert not [
        one.info["pid"]
        for one in psutil.process_iter(["pid", "cmdline"])
        if any(base in word for word in one.info["cmdline"] or ())
    ]
