"""
A local cloud for the tests of any project. In its conftest.py:

    pytest_plugins = ["sublet.local.pytest_plugin"]

and every test may ask for `local_cloud`: Cloud Storage, Pub/Sub, Run jobs and IAM on loopback, IAM
enforced, one for the whole session. Names are the tests' own to choose; `local_cloud.name("b")`
gives one that no other test has. The faults that a test orders are taken back after it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from sublet.local import state_file

PARTS = "storage,pubsub,run,iam"


class LocalCloudProcess:
    """A local cloud that runs as a process of its own, and what a test does with it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names = count(1)
        self._command("up", "--detach", "--only", PARTS)
        self._stack = state_file.require(directory)

    @property
    def variables(self) -> dict[str, str]:
        """What Google's clients read from the environment: the emulators' hosts, the project."""
        return dict(self._stack.variables)

    @property
    def project(self) -> str:
        return self._stack.variables["GOOGLE_CLOUD_PROJECT"]

    @property
    def endpoints(self) -> dict[str, str]:
        """The address of each part: storage, pubsub, pubsub_rest, run, iam, sts."""
        endpoints: dict[str, str] = self._ask("GET", "/status")["cloud"]["endpoints"]
        return endpoints

    def name(self, stem: str) -> str:
        """A name that nobody else has in this session."""
        return f"{stem}-{next(self._names):04d}"

    def storage_client(self) -> storage.Client:
        """The client of the owner, who may do everything."""
        return storage.Client(
            project=self.project,
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self._stack.variables["STORAGE_EMULATOR_HOST"]},
        )

    def bucket(self) -> storage.Bucket:
        """A new bucket, with uniform access."""
        bucket = self.storage_client().bucket(self.name("bucket"))
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        bucket.create()
        return bucket

    def service_account(self, name: str) -> tuple[str, dict[str, str]]:
        """
        An identity: its email, and the environment in which `google.auth.default()` is it.
        """
        made = self._ask("POST", "/service-accounts", {"name": name})
        return made["email"], made["variables"]

    def fault(
        self,
        name: str,
        *,
        on: str = "",
        times: int | None = 1,
        rate: float = 1.0,
        delay: timedelta = timedelta(seconds=2),
    ) -> None:
        """Order a fault by name (`sublet local fault add --help` lists them)."""
        order = {"fault": name, "on": on, "times": times, "rate": rate}
        self._ask("POST", "/faults", {**order, "seconds": delay.total_seconds()})

    def clear_faults(self) -> None:
        self._ask("DELETE", "/faults")

    def advance(self, by: timedelta) -> None:
        """Move the time of every part forward; for the rest of the session."""
        self._ask("POST", "/clock", {"seconds": by.total_seconds()})

    def stop(self) -> None:
        self._command("down")

    def _command(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "sublet.cli.main", "local", *arguments]
        command += ["--data-dir", str(self._directory)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        response = httpx.request(
            method,
            self._stack.control_url + path,
            content=json.dumps(body) if body else None,
            headers={"Authorization": f"Bearer {self._stack.control_secret}"},
            trust_env=False,
        )
        answer: dict[str, Any] = response.json()
        if response.is_error:
            raise ValueError(answer["error"]["message"])
        return answer


@pytest.fixture(scope="session")
def _local_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloudProcess]:
    cloud = LocalCloudProcess(tmp_path_factory.mktemp("local-cloud"))
    yield cloud
    cloud.stop()


@pytest.fixture
def local_cloud(_local_cloud: LocalCloudProcess) -> Iterator[LocalCloudProcess]:
    yield _local_cloud
    _local_cloud.clear_faults()
