"""Whose Pub/Sub a stack uses, and what is said when it is not there."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.pubsub.external.choice import choose_pubsub
from sublet.local.pubsub.external.emulators import VARIABLE, find_google_emulator

SUBLET = str(Path(sys.executable).with_name("sublet"))
INSTALL = "gcloud components install pubsub-emulator"


@pytest.fixture
def silent_address():
    """An address that is nobody's, and stays so."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*reserved.getsockname())


@pytest.fixture
def mute_address():
    """Somebody listens, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield "{}:{}".format(*listener.getsockname())


@pytest.fixture
def sdk(tmp_path, monkeypatch):
    """A machine with these programs on PATH, and those files in the SDK."""

    def made(*programs, emulator=False):
        root = tmp_path / "google-cloud-sdk"
        (root / "bin").mkdir(parents=True)
        for program in programs:
            (root / "bin" / program).write_text("#!/bin/sh\n")
            (root / "bin" / program).chmod(0o755)
        if emulator:
            script = root / "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
            script.parent.mkdir(parents=True)
            script.write_text("#!/bin/sh\n")
        monkeypatch.setenv("PATH", str(root / "bin"))
        monkeypatch.delenv("JAVA_HOME", raising=False)
        return root

    return made


def test_unless_somebody_asks_for_another_it_is_sublets_own(tmp_path):
    assert choose_pubsub(None, {}, tmp_path) == "sublet"


def test_an_emulator_that_runs_is_taken_if_the_variable_names_it(cloud, tmp_path):
    environ = {VARIABLE: cloud.address}
    assert choose_pubsub(None, environ, tmp_path) == cloud.address
    assert choose_pubsub("google", environ, tmp_path) == cloud.address
    assert choose_pubsub("sublet", environ, tmp_path) == "sublet"


def test_the_variable_that_our_own_env_command_set_does_not_lead_us_to_ourselves(
    silent_address, tmp_path
):
    port = int(silent_address.rpartition(":")[2])
    (tmp_path / "ports.json").write_text(json.dumps({"pubsub": port}))
    assert choose_pubsub(None, {VARIABLE: silent_address}, tmp_path) == "sublet"


@pytest.mark.parametrize("address", ["silent_address", "mute_address"])
def test_an_emulator_that_does_not_answer_is_said_within_two_seconds(address, request, tmp_path):
    """Google's client would try for ten minutes, without a word."""
    address = request.getfixturevalue(address)
    began = time.monotonic()
    with pytest.raises(FailedPrecondition, match=f"no Pub/Sub answers at {VARIABLE}={address}"):
        choose_pubsub(None, {VARIABLE: address}, tmp_path)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("address", ["pubsub.example:8085", "10.0.0.1:8085", "127.0.0.1", "8085"])
def test_an_emulator_must_be_on_this_machine(address, tmp_path):
    with pytest.raises(InvalidRequest, match="expected HOST:PORT of this machine"):
        choose_pubsub(None, {VARIABLE: address}, tmp_path)


def test_without_gcloud_it_is_said_what_to_install(sdk, tmp_path):
    sdk()
    with pytest.raises(FailedPrecondition, match=f"no gcloud on PATH.*{INSTALL}"):
        choose_pubsub("google", {}, tmp_path)


def test_without_the_emulator_it_is_said_what_to_install(sdk, tmp_path):
    sdk("gcloud")
    with pytest.raises(FailedPrecondition, match=f"has no Pub/Sub emulator.*{INSTALL}"):
        choose_pubsub("google", {}, tmp_path)


def test_without_java_it_is_said_what_to_install(sdk, tmp_path):
    sdk("gcloud", emulator=True)
    with pytest.raises(FailedPrecondition, match=r"no java on PATH.*install a Java runtime"):
        choose_pubsub("google", {}, tmp_path)


def test_it_is_found_in_the_sdk_that_gcloud_on_path_belongs_to(sdk, tmp_path, monkeypatch):
    """A package puts a link to gcloud on PATH, and the SDK elsewhere."""
    root = sdk("gcloud", "java", emulator=True)
    links = tmp_path / "bin"
    links.mkdir()
    for program in ("gcloud", "java"):
        (links / program).symlink_to(root / "bin" / program)
    monkeypatch.setenv("PATH", str(links))
    assert find_google_emulator().is_relative_to(root / "platform")


def up(directory, **environ):
    command = [SUBLET, "local", "up", "--detach", "--data-dir", str(directory)]
    command += environ.pop("options", [])
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, check=False
    )


def test_the_command_refuses_before_it_starts_anything(silent_address, tmp_path):
    refused = up(tmp_path / "data", PUBSUB_EMULATOR_HOST=silent_address)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"Error: no Pub/Sub answers at {VARIABLE}={silent_address}")
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    absent = up(tmp_path / "data", PATH=str(nothing), options=["--pubsub", "google"])
    assert absent.returncode == 1
    assert INSTALL in absent.stderr
    assert not (tmp_path / "data").exists()
