"""What goes wrong, as an exit code and a sentence. The codes are those that cli/main.py lists."""

import re
import socket
import threading
from pathlib import Path

import pytest

from sublet.cli import main

URL = "gs://acme-data/data/train.jsonl"
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "command-line.md"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["get", "dataset", "none"], 3, "Error: accounts/acme/datasets/none does not exist"),
        (["get", "dataset", "No Id"], 1, "Must be lowercase a-z, 0-9, or hyphen"),
        (["list", "jobs", "--filter", "x > 1"], 1, "expected FIELD="),
        (["list", "jobs", "-a", "other"], 4, "this API key is for accounts/acme"),
        (["create", "dataset", "d", "--external-url", "gs://none/o"], 4, "there is no such bucket"),
        (["get", "rlor-trainer-job", "s"], 3, "accounts/acme/rlorTrainerJobs/s does not exist"),
        (
            ["create", "sftj", "--dataset", "d", "--base-model", "b", "--batch-size-samples", "4"],
            1,
            "batchSizeSamples is not offered; give batchSize, in tokens",
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_refusal_is_the_control_planes_own_sentence(refused, words, code, message):
    got, said = refused(*words)
    assert got == code
    assert said.startswith("Error: ") and message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["create", "dataset", "d"], "give --external-url gs://BUCKET/OBJECT"),
        (["create", "dataset", "d", "rows.jsonl"], "gcloud storage cp rows.jsonl gs://"),
        (["create", "sftj", "--base-model", "m"], "Missing option '--dataset'"),
        (["create", "datasett"], "No such command 'datasett'"),
        (["create", "user"], "which user?"),
        (["update", "user", "u"], "nothing to change"),
        (["create", "watch", "w", "--bucket", "b", "--prefix", "p/", "--epochs", "2"], "epochs"),
        (["create", "api-key", "--expire-time", "soon"], "YYYY-MM-DD"),
        (["delete", "job", "j", "--wait-timeout", "long"], "90s, 2h or 1h30m"),
        (["get", "account", "--dry-run", "-a", ""], "give -a ACCOUNT"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_wrong_usage_says_what_would_be_right(refused, words, message):
    code, said = refused(*words)
    assert code == 2
    assert message in said


def test_a_key_that_is_none_is_not_allowed(refused):
    code, said = refused("list", "jobs", SUBLET_API_KEY="sk-nobody")
    assert code == 4
    assert "sk-nobody" not in said


def test_nobody_there_is_a_fault_that_may_pass(said):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    variables = {"SUBLET_BASE_URL": url, "SUBLET_API_KEY": "k", "SUBLET_ACCOUNT_ID": "acme"}
    done = said("list", "jobs", **variables)
    assert done.exit_code == 6
    trying, error = done.stderr.splitlines()
    assert trying.startswith(f"Trying again: nobody answers at {url}: ")
    assert error.startswith(f"Error: nobody answers at {url}: ")
    assert "sublet local status" in done.stderr


def test_a_key_whose_answer_was_lost_is_not_made_twice(said):
    """Nobody would ever see the first one, and it would be valid."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked = []

    def serve():
        for _ in range(2):
            connection, _ = listener.accept()
            asked.append(connection.recv(65536))
            connection.close()

    serving = threading.Thread(target=serve)
    serving.start()
    address = listener.getsockname()
    variables = {"SUBLET_BASE_URL": f"http://127.0.0.1:{address[1]}", "SUBLET_API_KEY": "k"}
    done = said("create", "api-key", "--user", "u", SUBLET_ACCOUNT_ID="acme", **variables)
    assert done.exit_code == 6
    socket.create_connection(address).close()
    serving.join()
    listener.close()
    assert asked[0].startswith(b"POST /v1/accounts/acme/users/u/apiKeys ")
    assert asked[1] == b""


def test_no_control_plane_at_all_says_how_to_get_one(said):
    done = said("list", "jobs")
    assert done.exit_code == 2
    assert "sublet local up" in done.stderr


def test_a_key_would_not_be_sent_in_clear(said):
    done = said("list", "jobs", SUBLET_BASE_URL="http://plane", SUBLET_API_KEY="sk-1")
    assert done.exit_code == 2
    assert "would carry the API key in clear" in done.stderr


def test_a_bug_is_not_dressed_up_as_a_refusal(served, world, server, said):
    world.registry.find = None
    done = said("list", "jobs", **server.variables())
    assert done.exit_code == 1
    assert "an internal error" in done.stderr


def test_the_guide_lists_the_exit_codes_that_there_are():
    listed = re.findall(r"^    (\d+)  +(.+)$", main.__doc__, re.MULTILINE)
    assert len(listed) == 9
    shown = re.findall(r"^\| (\d+) \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    assert shown == listed
