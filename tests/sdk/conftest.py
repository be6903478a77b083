"""
The client that others wrote, apart from what sublet is tested with: a folder of pinned wheels, and
an interpreter that sees nothing else.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PINS = HERE / "client.txt"


class Client:
    def __init__(self, packages: Path, stack) -> None:
        self._packages = packages
        self._stack = stack

    def run(self, program: str, tenants: dict[str, object]) -> None:
        """
        Run a program of ours on the client, as one tenant for each of its flavours; what it says
        when it fails is the test's message.
        """
        environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            "FIREWORKS_BASE_URL": self._stack.variables["SUBLET_BASE_URL"],
            "PYTHONPATH": str(self._packages),
        }
        told = {
            flavour: {"account": t.name, "api_key": t.api_key, "bucket": t.bucket_name}
            for flavour, t in tenants.items()
        }
        done = subprocess.run(
            [sys.executable, "-S", HERE / "programs" / f"{program}.py"],
            input=json.dumps(told),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def packages(request) -> Path:
    """Made once for all runs, under pytest's cache; whoever comes meanwhile waits for it."""
    pins = sha256(PINS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    directory = request.config.cache.mkdir(f"fireworks-ai-{pins}")
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "installed").exists():
            shutil.rmtree(directory / "packages", ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
            target = ["--target", directory / "packages"]
            wheels = ["--no-deps", "--no-compile", "--only-binary=:all:", "--requirement", PINS]
            done = subprocess.run(
                [*pip, *target, *wheels], capture_output=True, text=True, check=False
            )
            if done.returncode:
                pytest.skip(f"{PINS.name} cannot be installed here: {done.stderr[-300:]}")
            (directory / "installed").touch()
    return directory / "packages"


@pytest.fixture
def client(packages, stack) -> Client:
    return Client(packages, stack)
