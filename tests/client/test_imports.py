"""What a caller loads, and what not."""

import subprocess
import sys
from importlib.resources import files

import pytest

import sublet

LOADED = """
import sys
import sublet
before = set(sys.modules)
for name in sublet.__all__:
    getattr(sublet, name)
print(*before, "|", *sys.modules)
"""


def test_the_client_loads_no_google_library_and_the_package_loads_no_client():
    """Every deploy unit imports the package, and none of them needs a client."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    package, client = (set(half.split()) for half in done.stdout.split("|"))
    assert not {name.split(".")[0] for name in package} & {"httpx", "msgspec", "click", "rich"}
    assert "httpx" in client
    tops = {name.split(".")[0] for name in client - package}
    assert not tops & {"google", "grpc", "fastapi", "torch", "flask", "sqlite3"}
    assert not {name for name in client if name.startswith("google.")} - package
    assert "sublet.gcp" not in client


def test_what_is_offered_is_there_and_nothing_else_is():
    assert all(getattr(sublet, name).__name__ == name for name in sublet.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Llm'"):
        _ = sublet.Llm


def test_type_checkers_are_told_that_there_are_types():
    assert files("sublet").joinpath("py.typed").is_file()
