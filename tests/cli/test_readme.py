"""
What the README shows is run, as it stands there and in that order, against a whole stack. Lines
that make, start and stop a stack are left to test_local.py; this session's takes their place.
"""

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from sublet.cli.main import sublet as command_line

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BY_HAND, IN_PYTHON, BY_DROPPING = (
    README.split(f"{title}\n", 1)[1].split("\n##", 1)[0]
    for title in ("## Try it by hand", "### In Python", "### By dropping files")
)
OF_THE_STACK = ("make install", "sublet local up", "sublet local down", 'eval "$(sublet local env')


def commands(section: str) -> list[str]:
    """The indented lines, one command each; a line that ends in a backslash goes on."""
    shown = "\n".join(re.findall(r"^    (.*)$", section.partition("```")[0], re.MULTILINE))
    lines = (line.strip() for line in re.sub(r"\\\n\s*", "", shown).splitlines())
    return [line for line in lines if line and not line.startswith(OF_THE_STACK)]


def run(line: str) -> str:
    """A command of ours in this process, the others in a shell; the output."""
    if not line.startswith("sublet "):
        done = subprocess.run(
            ["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout
    _, *words = shlex.split(os.path.expandvars(line), comments=True)
    result = CliRunner().invoke(command_line, words)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


@pytest.fixture
def at_home(stack, tmp_path, monkeypatch):
    """A directory with the stack's .sublet in it, and the environment that `local env` makes."""
    (tmp_path / ".sublet").symlink_to(stack.directory)
    made = stack.sublet("local", "create-account", "reader", "--data-dir", stack.directory)
    api_key = re.search(r"^Api Key: (.+)$", made, re.MULTILINE)[1]
    monkeypatch.chdir(tmp_path)
    variables = stack.variables | {"SUBLET_ACCOUNT_ID": "reader", "SUBLET_API_KEY": api_key}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def shown(at_home):
    """Called with a section: every command of it, with what it printed."""
    return lambda section: {line: run(line) for line in commands(section)}


def of(shown, beginning):
    (output,) = (text for line, text in shown.items() if line.startswith(beginning))
    return output


def test_the_readme_trains_a_model_by_hand_in_python_and_by_dropping_a_file(shown, capsys):
    by_hand(shown(BY_HAND))
    in_python(capsys)
    by_dropping(shown(BY_DROPPING))


def by_hand(shown):
    assert "\nHealthy: a job may read it." in of(shown, "sublet doctor")
    assert "\nState: READY\n" in of(shown, "sublet create dataset")
    job = of(shown, "sublet create sftj")
    assert "\nState: JOB_STATE_COMPLETED\n" in job
    assert "\nOutput Model: accounts/reader/models/tool-caller\n" in job
    assert "\nState: READY\n" in of(shown, "sublet get model")
    assert "\nReadings:\n" in of(shown, "sublet get receipt")
    assert "roles/storage.objectViewer" in of(shown, "sublet get account")


def in_python(capsys):
    """Supervised, and then Fireworks' example of reinforcement to the letter."""
    supervised, rewarded, reinforcement = re.findall(r"```python\n(.*?)```", IN_PYTHON, re.DOTALL)
    names = {}
    exec(supervised, names)  # noqa: S102  that it runs is what is tested
    assert names["job"].is_completed
    printed = capsys.readouterr()
    name, _, loss = printed.out.strip().partition(" ")
    assert name == names["job"].output_model == "accounts/reader/models/tool-caller-2"
    assert float(loss) > 0
    assert "JOB_STATE_COMPLETED" in printed.err
    exec(rewarded + reinforcement, names)  # noqa: S102
    assert names["job"].is_completed
    assert names["job"].model().peft_details
    assert names["job"].receipt().readings


def by_dropping(shown):
    """That the file is trained on too is promise 1's to show; here its job is ended."""
    assert "\nBucket: my-bucket\n" in of(shown, "sublet create watch")
    assert "Unit: register-dataset" in of(shown, "sublet local status")
    dropped = eventually(
        lambda: [job for job in json.loads(run("sublet list jobs -o json")) if "watch" in job]
    )
    assert run(f"sublet cancel job {dropped[0]['name']}")


def eventually(found, within_s=60):
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value
