"""A shell completes the words and the options."""

import pytest
from click.testing import CliRunner

from sublet.cli.main import sublet as root


def completed(line: str) -> set[str]:
    """What bash is offered for the last word of a line."""
    words = line.split(" ")
    variables = {
        "_SUBLET_COMPLETE": "bash_complete",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = CliRunner().invoke(root, [], prog_name="sublet", env=variables)
    return {offer.partition(",")[2] for offer in done.stdout.splitlines()}


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("sublet cr", {"create"}),
        ("sublet create ", {"dataset", "sftj", "watch"}),
        ("sublet dataset ", {"create", "delete", "download", "get", "list", "update"}),
        ("sublet create sftj --base", {"--base-model"}),
        ("sublet get job j -o ", {"text", "json"}),
        ("sublet local ", {"up", "down", "env"}),
    ],
)
def test_the_next_word_is_offered(line, some):
    assert some <= completed(line)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_lines_that_name_the_command(shell):
    done = CliRunner().invoke(root, ["completion", shell])
    assert done.exit_code == 0
    assert "_SUBLET_COMPLETE" in done.stdout and f"{shell}_complete" in done.stdout
