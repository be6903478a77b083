"""A whole stack as a user runs it: `sublet local up --detach`, real processes, real clients."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import requests
from canaries import REWARD_CANARY, ROW_CANARY
from click.testing import CliRunner
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2, storage

from sublet.cli.main import sublet

SUBLET = str(Path(sys.executable).with_name("sublet"))
PLATFORM = "sublet-local"
TRAINING_JOB = f"projects/{PLATFORM}/locations/local1/jobs/sublet-trainer"
TERMS = (
    "--heartbeat-every=0.5",
    "--holder-is-lost-after=3",
    "--clock-skew=1",
    "--token-ttl=20",
    "--verification-token-ttl=4",
    "--sweep-every=1",
    "--checkpoint-every=3600",
)

NO_ROWS = b'{"messages": []}\n'
"""What registration refuses, so that nothing is trained on it."""

WATCH = {
    "prefix": "data/",
    "trainingTemplate": {
        "baseModel": "accounts/fireworks/models/tiny-random",
        "epochs": 1,
        "batchSize": 4096,
        "learningRate": 0.001,
    },
}


def rows(count: int = 20, text: str = "answer") -> bytes:
    lines = (
        {
            "messages": [
                {"role": "user", "content": f"question {number} {ROW_CANARY}"},
                {"role": "assistant", "content": f"{text} {number}"},
            ],
            "reward": REWARD_CANARY,
        }
        for number in range(count)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


class RunningStack:
    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self._options = (*TERMS, *options)
        self._names = count(1)
        self.up()

    def up(self) -> None:
        self._process("local", "up", "--detach", "--data-dir", self.directory, *self._options)
        state = json.loads((self.directory / "stack.json").read_text())
        self.pid = state["pid"]
        self.variables = state["variables"]
        self.ports = json.loads((self.directory / "ports.json").read_text())

    def down(self) -> None:
        self._process("local", "down", "--data-dir", self.directory)

    def kill(self) -> None:
        """SIGKILL to the stack, and to nothing else: what becomes of the rest is the question."""
        family = psutil.Process(self.pid).children(recursive=True)
        os.kill(self.pid, signal.SIGKILL)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive, f"left behind: {alive}"

    def end(self) -> None:
        """When nobody looks any more: with `down`, each of its processes takes its leave."""
        if sys.platform == "linux":
            self.kill()
        else:
            self.down()

    def sublet(self, *arguments: Any) -> str:
        """The command, within this process: starting Python costs more than what it then does."""
        done = CliRunner().invoke(sublet, [*map(str, arguments)])
        assert done.exit_code == 0, done.output + self.logs()
        return done.stdout

    def _process(self, *arguments: Any) -> None:
        command = [SUBLET, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stderr + self.logs()

    def logs(self) -> str:
        files = sorted((self.directory / "logs").rglob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text()[-2000:]}" for file in files)

    # --- people -----------------------------------------------------------------------------------

    def tenant(self, *flags: str, watch: dict[str, Any] | None = WATCH) -> "Tenant":
        """
        An account of its own for each test, so that no test waits for another's tokens to die.
        `flags` are those of `sublet local create-account`.
        """
        name = f"tenant-{next(self._names)}"
        data_dir = ("--data-dir", self.directory, "-o", "json")
        made = json.loads(self.sublet("local", "create-account", name, *flags, *data_dir))
        bucket = f"bucket-of-{name}"
        self.sublet("local", "create-bucket", bucket, "--account-id", name, *data_dir)
        tenant = Tenant(self, name, made["apiKey"], bucket)
        if watch:
            tenant.post("watches", {"watchId": "w", "watch": {"bucket": bucket, **watch}})
        return tenant

    def storage(self) -> storage.Client:
        return storage.Client(
            project="customer-local",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.variables["STORAGE_EMULATOR_HOST"]},
        )

    def trained(self) -> "Trained":
        """A job from its file to the end of its access; nothing was in its way."""
        tenant, data = self.tenant(), rows()
        blob = tenant.drop(data)
        job = tenant.job_of(blob)
        return Trained(tenant, data, blob, job, tenant.ended_lease(job))

    def run_clients(self) -> tuple[run_v2.JobsClient, run_v2.ExecutionsClient]:
        options = {"api_endpoint": f"http://127.0.0.1:{self.ports['run']}"}
        return tuple(
            kind(transport="rest", credentials=AnonymousCredentials(), client_options=options)
            for kind in (run_v2.JobsClient, run_v2.ExecutionsClient)
        )


class Trained(NamedTuple):
    tenant: "Tenant"
    data: bytes
    blob: storage.Blob
    job: dict[str, Any]
    """When it was over."""
    lease: dict[str, Any]
    """When it had ended."""


class Tenant:
    def __init__(self, stack: RunningStack, name: str, api_key: str, bucket_name: str) -> None:
        self.stack = stack
        self.name = name
        self.api_key = api_key
        self.bucket_name = bucket_name

    @property
    def bucket(self) -> storage.Bucket:
        return self.stack.storage().bucket(self.bucket_name)

    def drop(self, data: bytes | None = None, name: str = "data/train.jsonl") -> storage.Blob:
        blob = self.bucket.blob(name)
        blob.upload_from_string(rows() if data is None else data, content_type="application/jsonl")
        return blob

    # --- the API ----------------------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        base = f"{self.stack.variables['SUBLET_BASE_URL']}/v1/accounts/{self.name}"
        headers = {"Authorization": f"Bearer {self.api_key}"}
        url = f"{base}/{path}".rstrip("/")
        return requests.request(method, url, headers=headers, timeout=60, **options)

    def get(self, path: str) -> dict[str, Any]:
        answer = self.call("GET", path)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.call("POST", path, json=body)
        assert answer.ok, answer.text
        return answer.json()

    @property
    def datasets(self) -> list[dict[str, Any]]:
        return self.get("datasets")["datasets"]

    @property
    def jobs(self) -> list[dict[str, Any]]:
        return self.get("supervisedFineTuningJobs")["supervisedFineTuningJobs"]

    @property
    def leases(self) -> list[dict[str, Any]]:
        return self.get("leases")["leases"]

    # --- waiting ----------------------------------------------------------------------------------

    def dataset_of(self, blob: storage.Blob) -> dict[str, Any]:
        generation = str(blob.generation)
        return self.until(
            lambda: next((d for d in self.datasets if d["externalGeneration"] == generation), None)
        )

    def job_of(self, blob: storage.Blob, *states: str) -> dict[str, Any]:
        """The job that trains a generation, once it is in one of the states, or over."""
        wanted = {f"JOB_STATE_{state}" for state in (*states, "COMPLETED", "FAILED", "CANCELLED")}
        generation = str(blob.generation)

        def found():
            jobs = [j for j in self.jobs if j["externalGeneration"] == generation]
            return next((j for j in jobs if j["state"] in wanted), None)

        return self.until(found)

    def ended_lease(self, job: dict[str, Any]) -> dict[str, Any]:
        def ended():
            lease = next(lease for lease in self.leases if lease["name"] == job["lease"])
            return lease if lease["state"] in ("REVOKED", "FAILED") else None

        return self.until(ended)

    def until(self, found: Callable[[], Any], timeout_s: float = 90) -> Any:
        """Looks often at first, and then less, since each look is 10 ms of CPU here and there."""
        deadline, pause_s = time.monotonic() + timeout_s, 0.05
        while not (value := found()):
            assert time.monotonic() < deadline, f"it did not happen in time\n{self.stack.logs()}"
            time.sleep(pause_s)
            pause_s = min(1.2 * pause_s, 0.3)
        return value

    def manifest(self, job: dict[str, Any]) -> dict[str, Any]:
        prefix = job["outputUri"].removeprefix(f"gs://{self.bucket_name}/")
        return json.loads(self.bucket.blob(f"{prefix}manifest.json").download_as_bytes())
