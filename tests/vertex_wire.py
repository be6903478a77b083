"""
Vertex AI's custom jobs as their REST wire is documented, for want of an emulator: field names,
states, filters, pages, errors. Nothing runs; a test says what becomes of a job. What a body may
hold is the list of fields of the API's own definition, so that a name that is misspelt is refused
as Google refuses it.

Sources: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs and
googleapis/google/cloud/aiplatform/v1/{custom_job,machine_resources,job_state}.proto
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

PARENT = "projects/platform-project/locations/europe-west4"
PROJECT_NUMBER = "123456789012"
TERMINAL = {
    f"JOB_STATE_{state}"
    for state in ("SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED")
}
VERBS = frozenset({"cancel", "create", "get", "list"})

_LABEL = re.compile(r"[a-z0-9_-]{0,63}")
_FIELDS: dict[str, Any] = {
    "displayName": str,
    "labels": dict,
    "encryptionSpec": {"kmsKeyName": str},
    "jobSpec": {
        "persistentResourceId": str,
        "workerPoolSpecs": [
            {
                "machineSpec": {
                    "machineType": str,
                    "acceleratorType": str,
                    "acceleratorCount": int,
                },
                "replicaCount": str,
                "diskSpec": {"bootDiskType": str, "bootDiskSizeGb": int},
                "containerSpec": {
                    "imageUri": str,
                    "command": [str],
                    "args": [str],
                    "env": [{"name": str, "value": str}],
                },
            }
        ],
        "scheduling": {
            "timeout": str,
            "restartJobOnWorkerRestart": bool,
            "strategy": str,
            "disableRetries": bool,
            "maxWaitDuration": str,
        },
        "serviceAccount": str,
        "network": str,
        "reservedIpRanges": [str],
        "pscInterfaceConfig": {
            "networkAttachment": str,
            "dnsPeeringConfigs": [{"domain": str, "targetProject": str, "targetNetwork": str}],
        },
        "baseOutputDirectory": {"outputUriPrefix": str},
        "enableWebAccess": bool,
        "enableDashboardAccess": bool,
    },
}
_STRATEGIES = {"STANDARD", "SPOT", "FLEX_START"}
_MACHINES = {
    # Sources: https://cloud.google.com/compute/docs/gpus and MachineSpec#AcceleratorType
    "g2-standard-12": ("NVIDIA_L4", 1),
    "g2-standard-24": ("NVIDIA_L4", 2),
    "g2-standard-48": ("NVIDIA_L4", 4),
    "g2-standard-96": ("NVIDIA_L4", 8),
    "a2-highgpu-1g": ("NVIDIA_TESLA_A100", 1),
    "a2-highgpu-2g": ("NVIDIA_TESLA_A100", 2),
    "a2-highgpu-4g": ("NVIDIA_TESLA_A100", 4),
    "a2-highgpu-8g": ("NVIDIA_TESLA_A100", 8),
    "a2-ultragpu-1g": ("NVIDIA_A100_80GB", 1),
    "a2-ultragpu-2g": ("NVIDIA_A100_80GB", 2),
    "a2-ultragpu-4g": ("NVIDIA_A100_80GB", 4),
    "a2-ultragpu-8g": ("NVIDIA_A100_80GB", 8),
    "a3-highgpu-1g": ("NVIDIA_H100_80GB", 1),
    "a3-highgpu-2g": ("NVIDIA_H100_80GB", 2),
    "a3-highgpu-4g": ("NVIDIA_H100_80GB", 4),
    "a3-highgpu-8g": ("NVIDIA_H100_80GB", 8),
    "a3-ultragpu-8g": ("NVIDIA_H200_141GB", 8),
    "a4-highgpu-8g": ("NVIDIA_B200", 8),
}


class Refusal(Exception):
    """Google's error: HTTP status, the name of a gRPC code, words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "status": code, "message": message}}


@dataclass
class VertexWire:
    """
    `is_seen_late`: a list lacks what was just created. `refusals` are given to writes before any
    other answer, one each. `pages_of` bounds a page whatever is asked for.
    """

    url: str = ""
    parent: str = PARENT
    token: str = "vertex-token"
    may: frozenset[str] = VERBS
    may_act_as: frozenset[str] = frozenset()
    is_seen_late: bool = False
    pages_of: int = 100
    loses_answers: bool = False
    refusals: list[Refusal] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=lambda: count(4611686018427387904))

    # --- what a test does -------------------------------------------------------------------------

    def move(self, state: str, *, message: str = "", name: str | None = None) -> None:
        """What becomes of a job; of the only one, if none is named."""
        (only,) = [name] if name else self.jobs
        job = self.jobs[only]
        job["state"] = f"JOB_STATE_{state}"
        if message:
            job["error"] = {"code": 8, "message": message}

    # --- the wire ---------------------------------------------------------------------------------

    def answer(self, method: str, target: str, token: str, body: bytes) -> dict[str, Any]:
        split = urlsplit(target)
        self.requests.append(f"{method} {split.path}")
        if method == "POST" and self.refusals:
            raise self.refusals.pop(0)
        if token != f"Bearer {self.token}":
            raise Refusal(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        path, _, verb = split.path.removeprefix("/v1/").partition(":")
        query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        if method == "POST" and path == f"{self.parent}/customJobs":
            return self._create(json.loads(body))
        if method == "GET" and path == f"{self.parent}/customJobs":
            return self._list(query)
        if method == "POST" and verb == "cancel":
            return self._cancel(path)
        if method == "GET":
            self._check_may("get")
            return self._get(path)
        raise Refusal(404, "NOT_FOUND", f"{method} {path} is not on this server")

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        self._check_may("create")
        _check_fields(body, _FIELDS, "custom_job")
        _check_custom_job(body)
        account = body["jobSpec"].get("serviceAccount", "")
        if account not in self.may_act_as:
            message = f"You do not have permission to act as service account: {account}"
            raise Refusal(403, "PERMISSION_DENIED", message)
        number, location = str(next(self._ids)), self.parent.partition("/locations")[2]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        job = {
            **body,
            "name": f"projects/{PROJECT_NUMBER}/locations{location}/customJobs/{number}",
            "state": "JOB_STATE_PENDING",
            "createTime": now,
            "updateTime": now,
        }
        self.jobs[number] = job
        return job

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        self._check_may("list")
        condition = query.get("filter", "")
        seen = [] if self.is_seen_late else list(self.jobs.values())
        found = [job for job in reversed(seen) if _holds(condition, job)]
        start = int(query.get("pageToken") or 0)
        end = start + min(self.pages_of, int(query.get("pageSize") or 100))
        page: dict[str, Any] = {"customJobs": found[start:end]} if found[start:end] else {}
        return page | ({"nextPageToken": str(end)} if end < len(found) else {})

    def _cancel(self, path: str) -> dict[str, Any]:
        self._check_may("cancel")
        job = self._get(path)
        if job["state"] in TERMINAL:
            message = f"CustomJob {path} is in state {job['state']} and cannot be cancelled."
            raise Refusal(400, "FAILED_PRECONDITION", message)
        job["state"] = "JOB_STATE_CANCELLING"
        return {}

    def _get(self, path: str) -> dict[str, Any]:
        found = self.jobs.get(path.rpartition("/")[2])
        if found is None:
            raise Refusal(404, "NOT_FOUND", f"The CustomJob resource {path} is not found.")
        return found

    def _check_may(self, verb: str) -> None:
        if verb not in self.may:
            message = (
                f"Permission 'aiplatform.customJobs.{verb}' denied on resource '//{self.parent}'"
            )
            raise Refusal(403, "PERMISSION_DENIED", message)


def _check_fields(value: object, known: Any, path: str) -> None:
    """Source: https://protobuf.dev/programming-guides/json and google.rpc.BadRequest"""
    if isinstance(known, dict):
        if not isinstance(value, dict):
            raise _invalid(f'Invalid value at "{path}"')
        for name, inner in value.items():
            if name not in known:
                raise _invalid(f'Invalid JSON payload received. Unknown name "{name}" at "{path}"')
            _check_fields(inner, known[name], f"{path}.{name}")
    elif isinstance(known, list):
        if not isinstance(value, list):
            raise _invalid(f'Invalid value at "{path}"')
        for inner in value:
            _check_fields(inner, known[0], path)
    elif not isinstance(value, known):
        raise _invalid(f'Invalid value at "{path}"')


def _check_custom_job(body: dict[str, Any]) -> None:
    for name, value in body.get("labels", {}).items():
        if not _LABEL.fullmatch(name) or not _LABEL.fullmatch(value):
            raise _invalid(f"Invalid label {name}={value}")
    if not 0 < len(body.get("displayName", "")) <= 128:
        raise _invalid("display_name has 1 to 128 characters")
    spec = body.get("jobSpec", {})
    if spec.get("scheduling", {}).get("strategy", "STANDARD") not in _STRATEGIES:
        raise _invalid("Invalid value at scheduling.strategy")
    pools = spec.get("workerPoolSpecs", [])
    if not pools or pools[0]["replicaCount"] != "1":
        raise _invalid("The first worker pool has one replica: the primary.")
    for pool in pools:
        machine, container = pool["machineSpec"], pool["containerSpec"]
        has = _MACHINES.get(machine["machineType"])
        if has != (machine["acceleratorType"], machine["acceleratorCount"]):
            raise _invalid(f"Machine type {machine} is not supported.")
        if not container.get("imageUri") or int(pool["replicaCount"]) < 1:
            raise _invalid("A worker pool has a container and a replica.")


def _invalid(message: str) -> Refusal:
    return Refusal(400, "INVALID_ARGUMENT", message)


_TERM = re.compile(r'(state|labels\.[a-z0-9_]+)="([^"]*)"')


def _holds(condition: str, job: dict[str, Any]) -> bool:
    """The part of AIP-160 that is used: terms of equality, joined by OR."""
    terms = [_TERM.fullmatch(term) for term in condition.split(" OR ")] if condition else []
    if not all(terms):
        raise _invalid(f"Invalid list filter: {condition}")
    values = [(_value(job, term[1]), term[2]) for term in terms if term]
    return not values or any(value == wanted for value, wanted in values)


def _value(job: dict[str, Any], path: str) -> str | None:
    name, _, label = path.partition(".")
    found: str | None = job.get("labels", {}).get(label) if label else job[name]
    return found


@contextmanager
def served() -> Iterator[VertexWire]:
    wire = VertexWire()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is one packet, or the client waits 40 ms for the second

        def handle_one(self, method: str) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body, status = self.rfile.read(length), 200
            try:
                token = self.headers.get("Authorization", "")
                answer = wire.answer(method, self.path, token, body)
            except Refusal as refusal:
                status, answer = refusal.status, refusal.body
            if wire.loses_answers and method == "POST":
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            self.handle_one("GET")

        def do_POST(self) -> None:
            self.handle_one("POST")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    wire.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield wire
    finally:
        server.shutdown()
        server.server_close()
