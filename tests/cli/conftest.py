import pytest
from click.testing import CliRunner

from sublet.cli.main import sublet as command_line


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No stack in the working directory, no control plane in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("SUBLET_BASE_URL", "SUBLET_API_KEY", "SUBLET_ACCOUNT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def said(nowhere):
    """The command line, in this process: a result with exit_code, stdout and stderr."""

    def run(*words, **variables):
        return CliRunner().invoke(command_line, list(map(str, words)), env=variables)

    return run


@pytest.fixture
def sublet(served, server, said):
    """The command line as acme's admin: what it printed; it must have gone well."""

    def run(*words):
        done = said(*words, **server.variables())
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def refused(served, server, said):
    """As `sublet`, for what goes wrong: exit code and message."""

    def run(*words, **variables):
        done = said(*words, **{**server.variables(), **variables})
        assert done.stdout == "", done.stdout
        return done.exit_code, done.stderr.strip()

    return run
