"""`sublet local`, as somebody at a terminal meets it."""

import json
import os
import shlex
import signal
import socket
import subprocess

import psutil
import pytest
import requests
from click.testing import CliRunner
from processes import lives
from running_stack import SUBLET

from sublet.cli.main import sublet

NAMES = [
    "STORAGE_EMULATOR_HOST",
    "PUBSUB_EMULATOR_HOST",
    "GOOGLE_CLOUD_PROJECT",
    "SUBLET_BASE_URL",
    "SUBLET_API_KEY",
    "SUBLET_ACCOUNT_ID",
]


def run(*arguments, environ=os.environ):
    command = [SUBLET, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def foreground(tmp_path):
    """
    A stack as Ctrl-C meets it: `sublet local up`, running in front of somebody, its state in the
    .sublet of where they are. Called with more options, it is up when it returns.
    """
    started = []

    def up(*options):
        command = [SUBLET, "local", "up", *options]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        started.append(process)
        for line in process.stdout:
            if line.startswith("In another terminal"):
                break
        return process

    yield up
    for process in started:
        process.kill()
        process.wait()


def test_in_the_foreground_it_obeys_its_options_and_interrupted_it_leaves_no_process(
    foreground, tmp_path
):
    """The port that was given, anonymous calls refused, a good end."""
    port = free_port()
    process = foreground(f"--port=storage={port}", "--anonymous=deny")
    state = json.loads((tmp_path / ".sublet" / "stack.json").read_text())
    host = state["variables"]["STORAGE_EMULATOR_HOST"]
    assert host == f"http://127.0.0.1:{port}"
    assert requests.get(f"{host}/storage/v1/b?project=p", timeout=5).status_code == 401
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 6
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert process.stdout.read().endswith("sublet is down.\n")
    assert not [one for one in family if lives(one)]


def test_records_in_firestore_want_its_emulator_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    up = ["local", "up", "--registry=firestore", f"--data-dir={tmp_path / 'data'}"]
    refused = CliRunner().invoke(sublet, up)
    assert "run: gcloud components install cloud-firestore-emulator" in refused.output
    parts = CliRunner().invoke(sublet, [*up, "--only=storage"])
    assert "--registry is for the whole stack" in parts.output
    assert refused.exit_code and parts.exit_code
    assert not (tmp_path / "data").exists()


def test_a_shell_can_take_what_env_prints(stack):
    lines = run("local", "env", "--data-dir", stack.directory).stdout.splitlines()
    assert [line.partition("=")[0] for line in lines] == [f"export {name}" for name in NAMES]
    taken = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    listed = run("list", "job", "-o", "json", environ=os.environ | taken)
    assert json.loads(listed.stdout) == []


@pytest.mark.parametrize("command", ["env", "status", "down"])
def test_without_a_stack_the_answer_says_how_to_start_one(command, tmp_path):
    done = run("local", command, "--data-dir", tmp_path)
    assert done.returncode == 3
    assert f"start one: sublet local up --data-dir {tmp_path}" in done.stderr


def test_a_second_stack_on_the_same_state_is_refused(stack):
    done = run("local", "up", "--detach", "--data-dir", stack.directory)
    assert done.returncode != 0
    assert str(stack.pid) in done.stderr


def test_status_shows_each_part_with_its_address_and_its_identity(stack):
    status = json.loads(run("local", "status", "--data-dir", stack.directory, "-o", "json").stdout)
    broker = next(unit for unit in status["units"] if unit["unit"] == "lease-broker")
    assert broker["url"].startswith("http://127.0.0.1:")
    assert broker["identity"].startswith("lease-broker@")
    assert psutil.pid_exists(broker["pid"])


def test_parts_of_the_cloud_run_without_the_rest_of_sublet(tmp_path):
    data_dir = ("--data-dir", tmp_path)
    assert run("local", "up", "--only", "storage,iam", "--detach", *data_dir).returncode == 0
    try:
        lines = run("local", "env", *data_dir).stdout.splitlines()
        assert [line.partition("=")[0].removeprefix("export ") for line in lines] == [
            "STORAGE_EMULATOR_HOST",
            "GOOGLE_CLOUD_PROJECT",
        ]
        made = json.loads(
            run("local", "create-service-account", "reader", *data_dir, "-o", "json").stdout
        )
        assert made["email"].startswith("reader@")
        assert made["variables"]["GCE_METADATA_HOST"].startswith("127.0.0.1:")
        refused = run("local", "create-account", "acme", *data_dir)
        assert "the local cloud without sublet" in refused.stderr
    finally:
        run("local", "down", *data_dir)


def test_a_part_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    done = run("local", "up", "--only", "bigquery", "--data-dir", tmp_path)
    assert "expected some of storage, pubsub, run, iam" in done.stderr


def test_logs_show_every_part(stack):
    shown = run("local", "logs", "--no-follow", "--part", "stack", "--data-dir", stack.directory)
    assert "sublet is up" in shown.stdout


def test_iam_trace_explains_a_denial_in_words(stack):
    tenant = stack.tenant()
    data_dir = ("--data-dir", stack.directory)
    made = json.loads(
        run("local", "create-service-account", "nosy", *data_dir, "-o", "json").stdout
    )
    host = made["variables"]["GCE_METADATA_HOST"]
    answer = requests.get(
        f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token",
        headers={"Metadata-Flavor": "Google"},
        timeout=10,
    )
    storage = stack.variables["STORAGE_EMULATOR_HOST"]
    refused = requests.get(
        f"{storage}/storage/v1/b/{tenant.bucket_name}/o",
        headers={"Authorization": f"Bearer {answer.json()['access_token']}"},
        timeout=10,
    )
    assert refused.status_code == 403
    explained = run("local", "iam", "trace", "--last", "1", *data_dir).stdout
    assert made["email"] in explained
    assert "storage.objects.list" in explained
    assert answer.json()["access_token"] not in explained


def test_the_state_of_a_stack_is_nobody_elses_to_read(stack):
    for name in ("cloud.db", "stack.json", "secrets/seal-key"):
        assert (stack.directory / name).stat().st_mode & 0o077 == 0, name
