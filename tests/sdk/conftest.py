"""
The client that others wrote, in a venv of its own: what it needs must not change what sublet is
tested with.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CLIENT = "fireworks-ai==1.2.28"
PROGRAMS = Path(__file__).with_name("programs")


class Client:
    def __init__(self, python: Path, stack) -> None:
        self._python = python
        self._stack = stack

    def run(self, program: str, tenant, *arguments: str) -> None:
        """Run a program of ours on the client; what it says when it fails is the test's message."""
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "FIREWORKS_BASE_URL": self._stack.variables["SUBLET_BASE_URL"],
            "FIREWORKS_API_KEY": tenant.api_key,
            "FIREWORKS_ACCOUNT_ID": tenant.name,
        }
        command = [str(self._python), str(PROGRAMS / f"{program}.py"), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=150
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def sdk_python(request) -> Path:
    """Made once for all runs, under pytest's cache; whoever comes meanwhile waits for it."""
    directory = request.config.cache.mkdir(CLIENT.replace("==", "-"))
    python = directory / "venv" / "bin" / "python"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "installed").exists():
            shutil.rmtree(directory / "venv", ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", directory / "venv"], check=True)
            install = [python, "-m", "pip", "install", "--quiet", CLIENT]
            done = subprocess.run(install, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"{CLIENT} cannot be installed here: {done.stderr[-300:]}")
            (directory / "installed").touch()
    return python


@pytest.fixture
def client(sdk_python, stack) -> Client:
    return Client(sdk_python, stack)
