"""
Jobs and executions: what is kept of them, and how it looks on the wire.

Source: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sublet.codec import decode, encode, rfc3339
from sublet.errors import AlreadyExists, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS run_jobs (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS run_executions (
    name       TEXT PRIMARY KEY,
    job        TEXT NOT NULL,
    operation  TEXT NOT NULL,
    is_over    INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    body       TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTemplate:
    """
    What one task of an execution runs; `command` is the container's, since there is no image here.
    """

    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    service_account: str
    max_retries: int
    timeout_s: float
    task_count: int

    @classmethod
    def from_wire(cls, template: Mapping[str, Any]) -> "TaskTemplate":
        """
        Raises:
            InvalidRequest: a field is missing or of the wrong kind.
        """
        task = template.get("template") or {}
        containers = task.get("containers") or [{}]
        if len(containers) != 1:
            raise InvalidRequest(
                f"got {len(containers)} containers; this local cloud runs one a task"
            )
        container = containers[0]
        retries = task.get("maxRetries")
        return cls(
            image=str(container.get("image", "")),
            command=tuple(container.get("command", [])),
            arguments=tuple(container.get("args", [])),
            environment=_environment(container.get("env", [])),
            service_account=str(task.get("serviceAccount", "")),
            max_retries=3 if retries is None else int(retries),
            timeout_s=parse_seconds(task.get("timeout", "600s")),
            task_count=int(template.get("taskCount") or 1),
        )

    def overridden(self, overrides: Mapping[str, Any]) -> "TaskTemplate":
        """
        The template with what one run asks for instead; identity and image cannot be overridden.
        """
        changed = self
        for container in overrides.get("containerOverrides", []):
            environment = self.environment | _environment(container.get("env", []))
            changed = replace(changed, environment=environment)
            if container.get("clearArgs") or container.get("args"):
                changed = replace(changed, arguments=tuple(container.get("args", [])))
        if "timeout" in overrides:
            changed = replace(changed, timeout_s=parse_seconds(overrides["timeout"]))
        if overrides.get("taskCount"):
            changed = replace(changed, task_count=int(overrides["taskCount"]))
        return changed

    def to_wire(self) -> dict[str, Any]:
        return {
            "containers": [
                {
                    "image": self.image,
                    "command": list(self.command),
                    "args": list(self.arguments),
                    "env": [{"name": k, "value": v} for k, v in self.environment.items()],
                }
            ],
            "maxRetries": self.max_retries,
            "timeout": f"{self.timeout_s:g}s",
            "serviceAccount": self.service_account,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    name: str
    uid: str
    template: TaskTemplate
    labels: dict[str, str]
    created_at: datetime
    num_executions: int = 0
    latest_execution: str = ""

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = {
            "name": self.name,
            "uid": self.uid,
            "generation": "1",
            "labels": self.labels,
            "createTime": rfc3339(self.created_at),
            "updateTime": rfc3339(self.created_at),
            "template": {
                "taskCount": self.template.task_count,
                "template": self.template.to_wire(),
            },
            "executionCount": self.num_executions,
            "terminalCondition": {"type": "Ready", "state": "CONDITION_SUCCEEDED"},
            "etag": f'"{self.uid}"',
        }
        if self.latest_execution:
            wire["latestCreatedExecution"] = {"name": self.latest_execution}
        return wire


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    One task; `attempt` counts from 0, `pid` and `process_started_at` name its process, if it has
    one.
    """

    outcome: Outcome = Outcome.RUNNING
    attempt: int = 0
    pid: int = 0
    process_started_at: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    name: str
    uid: str
    job: str
    operation: str
    template: TaskTemplate
    tasks: tuple[Task, ...]
    created_at: datetime
    ended_at: datetime | None = None
    is_cancelled: bool = False

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
        return next((task.message for task in self.tasks if task.message), "")

    def with_task(self, index: int, task: Task) -> "Execution":
        tasks = (*self.tasks[:index], task, *self.tasks[index + 1 :])
        return replace(self, tasks=tasks)

    def to_wire(self) -> dict[str, Any]:
        def count(outcome: Outcome) -> int:
            return sum(task.outcome is outcome for task in self.tasks)

        condition: dict[str, Any] = {"type": "Completed", "state": _CONDITIONS[self.outcome]}
        if self.message:
            condition["message"] = self.message
        if self.outcome is Outcome.CANCELLED:
            condition["executionReason"] = "CANCELLED"
        wire: dict[str, Any] = {
            "name": self.name,
            "uid": self.uid,
            "generation": "1",
            "createTime": rfc3339(self.created_at),
            "startTime": rfc3339(self.created_at),
            "job": self.job,
            "taskCount": len(self.tasks),
            "template": self.template.to_wire(),
            "conditions": [condition],
            "runningCount": count(Outcome.RUNNING),
            "succeededCount": count(Outcome.SUCCEEDED),
            "failedCount": count(Outcome.FAILED),
            "cancelledCount": count(Outcome.CANCELLED),
            "retriedCount": sum(task.attempt for task in self.tasks),
            "etag": f'"{self.uid}"',
        }
        if self.ended_at:
            wire["completionTime"] = rfc3339(self.ended_at)
        return wire


class RunState:
    """What survives a restart."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(SCHEMA)

    def create_job(self, name: str, body: Mapping[str, Any], *, replaces: bool = False) -> Job:
        existing = self._database.row("SELECT body FROM run_jobs WHERE name = ?", name)
        if existing and not replaces:
            raise AlreadyExists(f"Resource '{name}' already exists.")
        job = Job(
            name=name,
            uid=str(uuid.uuid4()),
            template=TaskTemplate.from_wire(body.get("template") or {}),
            labels=dict(body.get("labels") or {}),
            created_at=self._clock.now(),
        )
        if not job.template.command:
            raise InvalidRequest("the container needs a command: there is no image to take it from")
        self._save_job(job)
        return job

    def job(self, name: str) -> Job:
        row = self._database.row("SELECT body FROM run_jobs WHERE name = ?", name)
        if row is None:
            raise NotFound(f"Resource '{name}' was not found")
        return decode(row["body"], Job)

    def jobs_under(self, parent: str) -> list[Job]:
        rows = self._database.rows("SELECT body FROM run_jobs ORDER BY name")
        jobs = [decode(row["body"], Job) for row in rows]
        return [job for job in jobs if job.name.startswith(f"{parent}/jobs/")]

    def delete_job(self, name: str) -> Job:
        job = self.job(name)
        self._database.execute("DELETE FROM run_jobs WHERE name = ?", name)
        return job

    def create_execution(self, job: Job, overrides: Mapping[str, Any]) -> Execution:
        template = job.template.overridden(overrides)
        location = job.name.partition("/jobs/")[0]
        name = f"{job.name}/executions/{job.name.rpartition('/')[2]}-{uuid.uuid4().hex[:5]}"
        execution = Execution(
            name=name,
            uid=str(uuid.uuid4()),
            job=job.name,
            operation=f"{location}/operations/{uuid.uuid4()}",
            template=template,
            tasks=(Task(),) * template.task_count,
            created_at=self._clock.now(),
        )
        with self._database.transaction():
            self.save(execution)
            count = job.num_executions + 1
            self._save_job(replace(job, num_executions=count, latest_execution=name))
        return execution

    def save(self, execution: Execution) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO run_executions VALUES (?, ?, ?, ?, ?, ?)",
            execution.name,
            execution.job,
            execution.operation,
            int(execution.outcome is not Outcome.RUNNING),
            execution.created_at.isoformat(),
            encode(execution).decode(),
        )

    def execution(self, name: str) -> Execution:
        return self._one("name", name)

    def execution_of_operation(self, operation: str) -> Execution:
        return self._one("operation", operation)

    def executions_of(self, job: str) -> list[Execution]:
        rows = self._database.rows(
            "SELECT body FROM run_executions WHERE job = ? ORDER BY created_at DESC", job
        )
        return [decode(row["body"], Execution) for row in rows]

    def running(self) -> list[Execution]:
        rows = self._database.rows("SELECT body FROM run_executions WHERE is_over = 0")
        return [decode(row["body"], Execution) for row in rows]

    def _one(self, column: str, value: str) -> Execution:
        row = self._database.row(
            f"SELECT body FROM run_executions WHERE {column} = ?",  # noqa: S608  a column of ours
            value,
        )
        if row is None:
            raise NotFound(f"Resource '{value}' was not found")
        return decode(row["body"], Execution)

    def _save_job(self, job: Job) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO run_jobs VALUES (?, ?)", job.name, encode(job).decode()
        )


def parse_seconds(text: object) -> float:
    """A protobuf duration in JSON: `"3.5s"`."""
    if not isinstance(text, str) or not text.endswith("s"):
        raise InvalidRequest(f'got duration {text!r}; expected seconds, as "600s"')
    try:
        return timedelta(seconds=float(text[:-1])).total_seconds()
    except (ValueError, OverflowError):
        raise InvalidRequest(f'got duration {text!r}; expected seconds, as "600s"') from None


def _environment(entries: list[Mapping[str, str]]) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in entries}
