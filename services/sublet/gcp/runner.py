"""
Training containers as executions of one Cloud Run job. RunJob takes no idempotency key and cannot
set an identity or a name, so what tells one execution from another, and a repeat from a first
start, is the lease that it is told to claim.

Source: https://cloud.google.com/run/docs/execute/jobs
"""

from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Final, cast

from google.cloud import run_v2

from sublet.errors import InvalidRequest, NotFound
from sublet.gcp.answers import translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.machines import Machine
from sublet.names import JobName, LeaseName
from sublet.ports import Execution, ExecutionState

_TIMEOUT_S: Final = 30


class CloudRunRunner:
    def __init__(self, training_job: str, identity: Identity, endpoints: Endpoints) -> None:
        self._training_job = training_job
        self._identity = identity
        self._options = {"api_endpoint": endpoints.run}

    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        """The machine is the training job's own, whichever was asked for."""
        del machine
        for found in self.running():
            if found.lease == lease:
                return found.name
        variables = [
            run_v2.EnvVar(name="SUBLET_LEASE", value=lease),
            run_v2.EnvVar(name="SUBLET_JOB", value=job),
        ]
        container = run_v2.RunJobRequest.Overrides.ContainerOverride(env=variables)
        request = run_v2.RunJobRequest(
            name=self._training_job,
            overrides=run_v2.RunJobRequest.Overrides(container_overrides=[container]),
        )
        with translated(f"run {self._training_job}"):
            operation = self._jobs.run_job(request, timeout=_TIMEOUT_S)
        return str(operation.metadata.name).rpartition("/")[2]

    def look_up(self, execution: str) -> Execution:
        try:
            with translated(f"look up {execution}"):
                found = self._executions.get_execution(
                    name=self._full_name(execution), timeout=_TIMEOUT_S
                )
        except NotFound:
            return Execution(name=execution, state=ExecutionState.UNKNOWN, message="not found")
        return _execution(found)

    def running(self) -> list[Execution]:
        with translated("list executions"):
            found = list(
                self._executions.list_executions(parent=self._training_job, timeout=_TIMEOUT_S)
            )
        return [_execution(one) for one in found if not one.completion_time]

    def cancel(self, execution: str) -> None:
        try:
            with translated(f"cancel {execution}"):
                self._executions.cancel_execution(
                    name=self._full_name(execution), timeout=_TIMEOUT_S
                )
        except NotFound:
            return
        except InvalidRequest:
            if self.look_up(execution).state is ExecutionState.RUNNING:
                raise

    def _full_name(self, execution: str) -> str:
        return f"{self._training_job}/executions/{execution}"

    @cached_property
    def _jobs(self) -> run_v2.JobsClient:
        return run_v2.JobsClient(
            transport="rest", credentials=self._identity.credentials, client_options=self._options
        )

    @cached_property
    def _executions(self) -> run_v2.ExecutionsClient:
        return run_v2.ExecutionsClient(
            transport="rest", credentials=self._identity.credentials, client_options=self._options
        )


def _execution(found: run_v2.Execution) -> Execution:
    return Execution(
        name=str(found.name).rpartition("/")[2],
        state=_state(found),
        message=_message(found),
        lease=_lease(found),
        started_at=cast("datetime", found.create_time),  # proto-plus gives datetimes
    )


def _lease(execution: run_v2.Execution) -> LeaseName | None:
    """What `start` put into its environment; nothing that somebody else started has it."""
    for container in execution.template.containers:
        for variable in container.env:
            if variable.name == "SUBLET_LEASE":
                with suppress(InvalidRequest):
                    return LeaseName.parse(variable.value)
    return None


def _state(execution: run_v2.Execution) -> ExecutionState:
    if not execution.completion_time:
        return ExecutionState.RUNNING
    if execution.cancelled_count:
        return ExecutionState.CANCELLED
    return ExecutionState.FAILED if execution.failed_count else ExecutionState.SUCCEEDED


def _message(execution: run_v2.Execution) -> str:
    return next((c.message for c in execution.conditions if c.type_ == "Completed"), "")
