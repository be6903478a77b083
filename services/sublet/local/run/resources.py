"""
Jobs, executions and tasks: what is kept of them, and how they look on the wire.

Source: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.errors import Conflict
from sublet.local.run.templates import TaskTemplate


class Outcome(StrEnum):
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


_CONDITIONS: Final = {
    Outcome.RUNNING: "CONDITION_RECONCILING",
    Outcome.SUCCEEDED: "CONDITION_SUCCEEDED",
    Outcome.FAILED: "CONDITION_FAILED",
    Outcome.CANCELLED: "CONDITION_FAILED",
}
_REASONS: Final = {Outcome.FAILED: "NON_ZERO_EXIT_CODE", Outcome.CANCELLED: "CANCELLED"}
CODES: Final = {Outcome.SUCCEEDED: 0, Outcome.FAILED: 10, Outcome.CANCELLED: 1}
"""google.rpc codes of an operation and of a task's last attempt: OK, ABORTED, CANCELLED."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`kept` are fields of a job that are shown again and nothing else: annotations, client."""

    name: str
    uid: str
    template: TaskTemplate
    labels: dict[str, str]
    created_at: datetime
    updated_at: datetime | None = None
    generation: int = 1
    creator: str = ""
    last_modifier: str = ""
    kept: dict[str, Any] = field(default_factory=dict)
    num_executions: int = 0
    latest_execution: str = ""

    @property
    def location(self) -> str:
        return self.name.partition("/jobs/")[0]

    @property
    def etag(self) -> str:
        return f'"{self.uid}/{self.generation}"'

    def to_wire(self, latest: "Execution | None" = None) -> dict[str, Any]:
        """`latest` is its latest execution, if that is not deleted."""
        wire: dict[str, Any] = {
            **self.kept,
            "name": self.name,
            "uid": self.uid,
            "generation": str(self.generation),
            "observedGeneration": str(self.generation),
            "labels": self.labels,
            "createTime": rfc3339(self.created_at),
            "updateTime": rfc3339(self.updated_at or self.created_at),
            "creator": self.creator,
            "lastModifier": self.last_modifier,
            "template": self.template.execution_to_wire(),
            "executionCount": self.num_executions,
            "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
            "etag": self.etag,
        }
        if latest:
            wire["latestCreatedExecution"] = latest.reference_to_wire()
        return wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    One task; `attempt` counts from 0, `pid` and `process_started_at` name its process, if it has
    one. `exit_code` and `signal` are of the last attempt that ended. A task that has not started
    waits for its turn.
    """

    outcome: Outcome = Outcome.RUNNING
    attempt: int = 0
    pid: int = 0
    process_started_at: float = 0.0
    message: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int = 0
    signal: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """
    `is_reported`: whoever wants to know of its end was told. `log_directory` is where its tasks'
    output is.
    """

    name: str
    uid: str
    job: str
    operation: str
    template: TaskTemplate
    tasks: tuple[Task, ...]
    created_at: datetime
    ended_at: datetime | None = None
    is_cancelled: bool = False
    is_reported: bool = False
    creator: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    log_directory: str = ""

    @property
    def short_name(self) -> str:
        return self.name.rpartition("/")[2]

    @property
    def etag(self) -> str:
        return f'"{self.uid}"'

    @property
    def outcome(self) -> Outcome:
        outcomes = {task.outcome for task in self.tasks}
        if Outcome.RUNNING in outcomes:
            return Outcome.RUNNING
        for bad in (Outcome.CANCELLED, Outcome.FAILED):
            if bad in outcomes:
                return bad
        return Outcome.SUCCEEDED

    @property
    def message(self) -> str:
        """What became of it: of the first task that failed, or of one that is tried again."""
        outcome = self.outcome
        return next((t.message for t in self.tasks if t.message and t.outcome is outcome), "")

    @property
    def started_at(self) -> datetime | None:
        return min((task.started_at for task in self.tasks if task.started_at), default=None)

    def with_task(self, index: int, task: Task) -> "Execution":
        tasks = (*self.tasks[:index], task, *self.tasks[index + 1 :])
        return replace(self, tasks=tasks)

    def log_of(self, index: int) -> str:
        """The name of the file that a task's output goes to, every attempt after the other."""
        return f"{self.short_name}-task{index}.log"

    def task_name(self, index: int) -> str:
        return f"{self.name}/tasks/{self.short_name}-task{index}"

    def reference_to_wire(self) -> dict[str, Any]:
        wire = {
            "name": self.name,
            "createTime": rfc3339(self.created_at),
            "completionStatus": f"EXECUTION_{self.outcome}",
        }
        if self.ended_at:
            wire["completionTime"] = rfc3339(self.ended_at)
        return wire

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {
            **self._of_every_kind(),
            **self.template.kept_of_execution,
            "name": self.name,
            "uid": self.uid,
            "creator": self.creator,
            "labels": self.labels,
            "parallelism": self.template.parallelism,
            "taskCount": len(self.tasks),
            "template": self.template.to_wire(),
            "reconciling": self.outcome is Outcome.RUNNING,
            "conditions": self._conditions(),
            "runningCount": sum(_is_running(task) for task in self.tasks),
            "succeededCount": self._count(Outcome.SUCCEEDED),
            "failedCount": self._count(Outcome.FAILED),
            "cancelledCount": self._count(Outcome.CANCELLED),
            "retriedCount": sum(task.attempt > 0 for task in self.tasks),
            "logUri": self._log_uri(),
            "etag": self.etag,
        }
        if self.started_at:
            wire["startTime"] = rfc3339(self.started_at)
        if self.ended_at:
            wire["completionTime"] = rfc3339(self.ended_at)
        return wire

    def task_to_wire(self, index: int) -> dict[str, Any]:
        task = self.tasks[index]
        template = self.template.to_wire()
        wire: dict[str, Any] = {
            **self._of_every_kind(),
            **template,
            "name": self.task_name(index),
            "uid": f"{self.uid}-{index}",
            "labels": self.labels,
            "execution": self.name,
            "reconciling": task.outcome is Outcome.RUNNING,
            "conditions": [_condition("Completed", task.outcome, task.message, task.ended_at)],
            "index": index,
            "retried": task.attempt,
            "logUri": self._log_uri(self.log_of(index)),
            "etag": f'"{self.uid}-{index}/{task.attempt}"',
            "scheduledTime": rfc3339(self.created_at),
        }
        if task.started_at:
            wire["startTime"] = rfc3339(task.started_at)
        if task.ended_at:
            wire["completionTime"] = rfc3339(task.ended_at)
        if task.outcome is not Outcome.RUNNING or task.attempt:
            wire["lastAttemptResult"] = _attempt_to_wire(task)
        return wire

    def _of_every_kind(self) -> dict[str, Any]:
        return {
            "generation": "1",
            "observedGeneration": "1",
            "createTime": rfc3339(self.created_at),
            "updateTime": rfc3339(self.ended_at or self.started_at or self.created_at),
            "job": self.job,
        }

    def _conditions(self) -> list[dict[str, Any]]:
        started = Outcome.SUCCEEDED if self.started_at else Outcome.RUNNING
        return [
            _condition("Completed", self.outcome, self.message, self.ended_at),
            _condition("ResourcesAvailable", Outcome.SUCCEEDED, "", self.created_at),
            _condition("Started", started, "", self.started_at),
        ]

    def _log_uri(self, file: str = "") -> str:
        """One task, one file; of several, the directory that theirs are in."""
        if not self.log_directory:
            return ""
        if not file and len(self.tasks) == 1:
            file = self.log_of(0)
        return f"file://{self.log_directory}/{file}"

    def _count(self, outcome: Outcome) -> int:
        return sum(task.outcome is outcome for task in self.tasks)


def check_etag(got: object, thing: Job | Execution) -> None:
    """
    Raises:
        Conflict: the thing was changed since that etag was read. None, or empty, is any.
    """
    if got and got != thing.etag:
        raise Conflict(
            f"etag {got} of {thing.name} is stale, it has {thing.etag} now: read it again"
        )


def _is_running(task: Task) -> bool:
    return task.outcome is Outcome.RUNNING and task.started_at is not None


def _condition(
    kind: str, outcome: Outcome, message: str, changed_at: datetime | None
) -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "state": _CONDITIONS[outcome]}
    if message:
        condition["message"] = message
    if outcome in _REASONS:
        condition["executionReason"] = _REASONS[outcome]
    if changed_at:
        condition["lastTransitionTime"] = rfc3339(changed_at)
    return condition


def _attempt_to_wire(task: Task) -> dict[str, Any]:
    code = CODES[Outcome.FAILED if task.outcome is Outcome.RUNNING else task.outcome]
    status = {"code": code, "message": task.message}
    return {"status": status, "exitCode": task.exit_code, "termSignal": task.signal}
