"""
Training containers as Vertex AI custom jobs: several accelerators, several machines, spot prices.
Vertex AI makes a job's id itself and takes no key for a repeat, so a job carries its lease and a
name of ours as labels, and is found by them. Its machines restart with the name that they had, so
that a restarted trainer takes its own lease up again.

Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/projects.locations.customJobs
"""

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import msgspec

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.machines import Engine, Machine, Offer, Shape
from sublet.names import JobName, LeaseName
from sublet.ports import LIVING_EXECUTIONS, Execution, ExecutionState

PREFIX: Final = "vertex-"
"""No execution of Cloud Run is named so: those begin with the name of their job."""

_TIMEOUT_S: Final = 30
_PAGE: Final = 100
_LEASE: Final = "sublet_lease"
_EXECUTION: Final = "sublet_execution"
_UNLABELLED: Final = f"{PREFIX}job-"

# Source: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/JobState
_STATES: Final[Mapping[str, ExecutionState]] = {
    "JOB_STATE_QUEUED": ExecutionState.WAITING,
    "JOB_STATE_PENDING": ExecutionState.WAITING,
    "JOB_STATE_RUNNING": ExecutionState.RUNNING,
    "JOB_STATE_CANCELLING": ExecutionState.RUNNING,
    "JOB_STATE_PAUSED": ExecutionState.WAITING,
    "JOB_STATE_UPDATING": ExecutionState.RUNNING,
    "JOB_STATE_SUCCEEDED": ExecutionState.SUCCEEDED,
    "JOB_STATE_PARTIALLY_SUCCEEDED": ExecutionState.FAILED,
    "JOB_STATE_FAILED": ExecutionState.FAILED,
    "JOB_STATE_EXPIRED": ExecutionState.FAILED,
    "JOB_STATE_CANCELLED": ExecutionState.CANCELLED,
}
_NOT_OVER: Final = " OR ".join(
    f'state="{name}"' for name, state in _STATES.items() if state in LIVING_EXECUTIONS
)


class VertexRunner:
    """
    Args:
        parent: projects/P/locations/L.
        template: a CustomJob as the API takes it, without machines: one worker pool with the
            container, the trainer's service account, scheduling, network and key.
    """

    def __init__(
        self, parent: str, template: str, offer: Offer, identity: Identity, endpoints: Endpoints
    ) -> None:
        location = parent.rpartition("/")[2]
        host = endpoints.vertex_ai or f"https://{location}-aiplatform.googleapis.com"
        self._api = f"{host}/v1"
        self._parent = parent
        self._template = template
        self._service_account = msgspec.json.decode(template, type=_CustomJob).runs_as
        self._offer = offer
        self._identity = identity

    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        shape = self._offer.shape_of(machine, on=Engine.VERTEX_AI)
        for found in self._find(f'labels.{_LEASE}="{lease.id}"'):
            if found.lease == lease and found.execution_state in LIVING_EXECUTIONS:
                return found.execution
        execution = f"{PREFIX}{secrets.token_hex(10)}"
        body = _filled(self._template, shape, job=job, lease=lease, execution=execution)
        self._ask("POST", f"{self._parent}/customJobs", json=body)
        return execution

    def look_up(self, execution: str) -> Execution:
        found = self._job(execution)
        if found is None:
            return Execution(name=execution, state=ExecutionState.UNKNOWN, message="not found")
        return found.to_execution()

    def running(self) -> list[Execution]:
        """Those that run as the trainer, since no other could claim a lease."""
        found = self._find(_NOT_OVER)
        return [one.to_execution() for one in found if one.runs_as == self._service_account]

    def cancel(self, execution: str) -> None:
        found = self._job(execution)
        if found is None or found.execution_state not in LIVING_EXECUTIONS:
            return
        try:
            self._ask("POST", f"{found.name}:cancel", json={})
        except NotFound:
            return
        except (InvalidRequest, FailedPrecondition):
            if self.look_up(execution).state in LIVING_EXECUTIONS:
                raise

    def _job(self, execution: str) -> "_CustomJob | None":
        if execution.startswith(_UNLABELLED):
            name = f"{self._parent}/customJobs/{execution.removeprefix(_UNLABELLED)}"
            try:
                return msgspec.json.decode(self._ask("GET", name), type=_CustomJob)
            except NotFound:
                return None
        return next(self._find(f'labels.{_EXECUTION}="{execution}"'), None)

    def _find(self, condition: str) -> Iterator["_CustomJob"]:
        token = ""
        while True:
            query = {"filter": condition, "pageSize": _PAGE, "pageToken": token}
            answer = self._ask("GET", f"{self._parent}/customJobs", params=query)
            page = msgspec.json.decode(answer, type=_Page)
            yield from page.custom_jobs
            token = page.next_page_token
            if not token:
                return

    def _ask(self, method: str, path: str, **request: Any) -> bytes:  # noqa: ANN401  of requests
        with translated("ask Vertex AI"):
            answer = self._identity.session.request(
                method, f"{self._api}/{path}", timeout=_TIMEOUT_S, **request
            )
        check_answer(answer, "ask Vertex AI")
        return bytes(answer.content)


def _filled(
    template: str, shape: Shape, *, job: JobName, lease: LeaseName, execution: str
) -> dict[str, Any]:
    """
    The custom job of one lease. The first worker pool is one machine, the second is all others.

    The container finds its execution where Cloud Run would put it.

    Source: https://cloud.google.com/vertex-ai/docs/training/distributed-training
    """
    body: dict[str, Any] = json.loads(template)
    (pool,) = body["jobSpec"]["workerPoolSpecs"]
    told = {"SUBLET_LEASE": lease, "SUBLET_JOB": job, "CLOUD_RUN_EXECUTION": execution}
    container = pool["containerSpec"]
    container["env"] = [
        *container.get("env", ()),
        *({"name": name, "value": value} for name, value in told.items()),
    ]
    pool["machineSpec"] = {
        "machineType": shape.machine_type,
        "acceleratorType": shape.google_name,
        "acceleratorCount": shape.per_node,
    }
    others = [{**pool, "replicaCount": str(shape.num_nodes - 1)}] if shape.num_nodes > 1 else []
    body["jobSpec"]["workerPoolSpecs"] = [{**pool, "replicaCount": "1"}, *others]
    body["displayName"] = f"{body['displayName']} {lease.id}"
    body["labels"] = {**body.get("labels", {}), _LEASE: lease.id, _EXECUTION: execution}
    return body


# --- what is read of the wire ---------------------------------------------------------------------


class _Wire(msgspec.Struct, rename="camel", frozen=True):
    pass


class _Variable(_Wire, frozen=True):
    name: str = ""
    value: str = ""


class _Container(_Wire, frozen=True):
    env: tuple[_Variable, ...] = ()


class _WorkerPool(_Wire, frozen=True):
    container_spec: _Container = _Container()


class _JobSpec(_Wire, frozen=True):
    worker_pool_specs: tuple[_WorkerPool, ...] = ()
    service_account: str = ""


class _Status(_Wire, frozen=True):
    message: str = ""


class _CustomJob(_Wire, frozen=True):
    name: str = ""
    state: str = "JOB_STATE_UNSPECIFIED"
    job_spec: _JobSpec = _JobSpec()
    labels: dict[str, str] = {}
    error: _Status = _Status()
    create_time: datetime | None = None

    @property
    def runs_as(self) -> str:
        return self.job_spec.service_account

    @property
    def execution(self) -> str:
        """The name that `start` gave it; one that somebody else started has only its id."""
        return self.labels.get(_EXECUTION) or f"{_UNLABELLED}{self.name.rpartition('/')[2]}"

    @property
    def execution_state(self) -> ExecutionState:
        return _STATES.get(self.state, ExecutionState.UNKNOWN)

    @property
    def lease(self) -> LeaseName | None:
        """What its container is told to claim, whatever its labels say."""
        for pool in self.job_spec.worker_pool_specs:
            for variable in pool.container_spec.env:
                if variable.name == "SUBLET_LEASE":
                    with suppress(InvalidRequest):
                        return LeaseName.parse(variable.value)
        return None

    def to_execution(self) -> Execution:
        return Execution(
            name=self.execution,
            state=self.execution_state,
            message=self.error.message,
            lease=self.lease,
            started_at=self.create_time,
        )


class _Page(_Wire, frozen=True):
    custom_jobs: tuple[_CustomJob, ...] = ()
    next_page_token: str = ""
