"""gcloud as a stranger has it: no credentials, no configuration, the local cloud's addresses."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from running_cloud import CUSTOMER

needs_gcloud = pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")


class Gcloud:
    """Called with a command's words: `gcloud("storage", "ls")` is what it printed."""

    def __init__(self, home: Path, **endpoints: str) -> None:
        """
        Args:
            endpoints: the base URL of each API, by its name in gcloud's settings.
        """
        overrides = {
            f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name.upper()}": f"{url}/"
            for name, url in endpoints.items()
        }
        self._environment = {
            **overrides,
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "1",
            "CLOUDSDK_CONFIG": str(home / "gcloud"),
            "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "1",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "1",
            "CLOUDSDK_CORE_PROJECT": CUSTOMER,
            "HOME": str(home),
            "PATH": os.environ["PATH"],
        }

    def __call__(self, *words: str) -> str:
        done = self._run(words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str):
        return json.loads(self(*words, "--format=json") or "null")

    def refusal(self, *words: str) -> str:
        """What it says of a command that fails."""
        done = self._run(words)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def _run(self, words) -> subprocess.CompletedProcess[str]:
        command = ["gcloud", *words]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=False, timeout=120
        )
