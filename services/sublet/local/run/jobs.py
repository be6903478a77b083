"""Jobs, executions and operations that survive a restart."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from sublet.codec import decode, encode
from sublet.errors import AlreadyExists, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.run.resources import Execution, Job, Outcome, Task
from sublet.local.run.templates import TaskTemplate
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
CREATE INDEX IF NOT EXISTS run_executions_of ON run_executions (job, created_at);
CREATE INDEX IF NOT EXISTS run_executions_by_operation ON run_executions (operation);
CREATE TABLE IF NOT EXISTS run_operations (
    name TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;
"""
_NAME: Final = re.compile(r"projects/[^/]+/locations/[^/]+/jobs/[a-z](?:[-a-z0-9]{0,47}[a-z0-9])?")
_KEPT: Final = frozenset({"annotations", "client", "clientVersion", "launchStage"})
_REFUSED: Final = frozenset({"binaryAuthorization", "startExecutionToken", "runExecutionToken"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedOperation:
    """A change that was over when it was answered; `response` says its own type."""

    name: str
    job: str
    created_at: datetime
    response: dict[str, Any] = field(default_factory=dict)


class RunState:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        database.create_tables(SCHEMA)

    # --- jobs -------------------------------------------------------------------------------------

    def create_job(
        self, name: str, body: Mapping[str, Any], *, replaces: bool = False, creator: str = ""
    ) -> Job:
        """
        Args:
            body: a Job in JSON.
            replaces: one that is there is changed instead.

        Raises:
            AlreadyExists: one is there. InvalidRequest: the name or a field cannot be.
        """
        if self.find_job(name):
            if not replaces:
                raise AlreadyExists(f"Resource '{name}' already exists.")
            return self.update_job(name, body, modifier=creator)
        return self._save_job(self.new_job(name, body, creator=creator))

    def new_job(self, name: str, body: Mapping[str, Any], *, creator: str = "") -> Job:
        """What `create_job` would keep."""
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"got job {name!r}; expected projects/P/locations/L/jobs/ID, with an id of 1-49 of "
                "a-z, 0-9 and hyphens that begins with a letter"
            )
        if refused := sorted(key for key in _REFUSED if body.get(key)):
            raise InvalidRequest(f"{', '.join(refused)}: this local cloud has none; leave it out")
        return Job(
            name=name,
            uid=str(uuid.uuid4()),
            template=TaskTemplate.from_wire(body.get("template") or {}),
            labels=dict(body.get("labels") or {}),
            created_at=self._clock.now(),
            creator=creator,
            last_modifier=creator,
            kept={key: body[key] for key in sorted(_KEPT) if key in body},
        )

    def changed_job(self, name: str, body: Mapping[str, Any], *, modifier: str = "") -> Job:
        """What `update_job` would keep: everything as in the body; what it leaves out is gone."""
        current, new = self.job(name), self.new_job(name, body)
        return replace(
            current,
            template=new.template,
            labels=new.labels,
            kept=new.kept,
            generation=current.generation + (new.template != current.template),
            updated_at=self._clock.now(),
            last_modifier=modifier,
        )

    def update_job(self, name: str, body: Mapping[str, Any], *, modifier: str = "") -> Job:
        return self._save_job(self.changed_job(name, body, modifier=modifier))

    def find_job(self, name: str) -> Job | None:
        row = self._database.row("SELECT body FROM run_jobs WHERE name = ?", name)
        return decode(row["body"], Job) if row else None

    def job(self, name: str) -> Job:
        found = self.find_job(name)
        if found is None:
            raise NotFound(f"Resource '{name}' was not found")
        return found

    def jobs_under(self, parent: str) -> list[Job]:
        rows = self._database.rows("SELECT body FROM run_jobs ORDER BY name")
        jobs = [decode(row["body"], Job) for row in rows]
        return [job for job in jobs if job.name.startswith(f"{parent}/jobs/")]

    def delete_job(self, name: str) -> Job:
        """With its executions; whoever asks stops what runs of them."""
        job = self.job(name)
        with self._database.transaction():
            self._database.execute("DELETE FROM run_executions WHERE job = ?", name)
            self._database.execute("DELETE FROM run_jobs WHERE name = ?", name)
        return job

    def job_to_wire(self, job: Job) -> dict[str, Any]:
        return job.to_wire(self.find_execution(job.latest_execution))

    # --- executions -------------------------------------------------------------------------------

    def new_execution(
        self, job: Job, overrides: Mapping[str, Any], *, creator: str = "", log_directory: str = ""
    ) -> Execution:
        """What `create_execution` would keep."""
        template = job.template.overridden(overrides)
        name = f"{job.name}/executions/{job.name.rpartition('/')[2]}-{uuid.uuid4().hex[:5]}"
        return Execution(
            name=name,
            uid=str(uuid.uuid4()),
            job=job.name,
            operation=f"{job.location}/operations/{uuid.uuid4()}",
            template=template,
            tasks=(Task(),) * template.task_count,
            created_at=self._clock.now(),
            creator=creator,
            labels={**job.labels, **template.kept_of_execution.get("labels", {})},
            log_directory=log_directory,
        )

    def create_execution(self, job: Job, execution: Execution) -> Execution:
        with self._database.transaction():
            self.save(execution)
            count = job.num_executions + 1
            self._save_job(replace(job, num_executions=count, latest_execution=execution.name))
        return execution

    def save(self, execution: Execution) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO run_executions VALUES (?, ?, ?, ?, ?, ?)",
            execution.name,
            execution.job,
            execution.operation,
            int(execution.outcome is not Outcome.RUNNING and execution.is_reported),
            execution.created_at.isoformat(),
            encode(execution).decode(),
        )

    def delete_execution(self, name: str) -> None:
        self._database.execute("DELETE FROM run_executions WHERE name = ?", name)

    def find_execution(self, name: str) -> Execution | None:
        return self._find("name", name)

    def execution(self, name: str) -> Execution:
        return self._found(self._find("name", name), name)

    def execution_of_operation(self, operation: str) -> Execution:
        return self._found(self._find("operation", operation), operation)

    def executions_of(self, job: str) -> list[Execution]:
        """The newest first; `projects/P/locations/L/jobs/-` is every job there."""
        location, _, job_id = job.rpartition("/jobs/")
        where, value = ("job", job) if job_id != "-" else ("substr(job, 1, ?)", f"{location}/jobs/")
        parameters = (value,) if job_id != "-" else (len(value), value)
        rows = self._database.rows(
            f"SELECT body FROM run_executions WHERE {where} = ? "  # noqa: S608  our own words
            "ORDER BY created_at DESC, name",
            *parameters,
        )
        return [decode(row["body"], Execution) for row in rows]

    def running(self) -> list[Execution]:
        """Those that are not over, or over and not reported."""
        rows = self._database.rows("SELECT body FROM run_executions WHERE is_over = 0")
        return [decode(row["body"], Execution) for row in rows]

    # --- operations -------------------------------------------------------------------------------

    def finish_operation(self, job: str, response: dict[str, Any]) -> FinishedOperation:
        """Keep the answer of a change that is over, to be asked for again."""
        location = job.partition("/jobs/")[0]
        operation = FinishedOperation(
            name=f"{location}/operations/{uuid.uuid4()}",
            job=job,
            created_at=self._clock.now(),
            response=response,
        )
        self._database.execute(
            "INSERT INTO run_operations VALUES (?, ?)", operation.name, encode(operation).decode()
        )
        return operation

    def finished_operation(self, name: str) -> FinishedOperation | None:
        row = self._database.row("SELECT body FROM run_operations WHERE name = ?", name)
        return decode(row["body"], FinishedOperation) if row else None

    def finished_operations_under(self, location: str) -> list[FinishedOperation]:
        rows = self._database.rows("SELECT body FROM run_operations")
        found = [decode(row["body"], FinishedOperation) for row in rows]
        return [one for one in found if one.name.startswith(f"{location}/operations/")]

    def forget_operation(self, name: str) -> bool:
        return bool(self._database.execute("DELETE FROM run_operations WHERE name = ?", name))

    def _find(self, column: str, value: str) -> Execution | None:
        row = self._database.row(
            f"SELECT body FROM run_executions WHERE {column} = ?",  # noqa: S608  a column of ours
            value,
        )
        return decode(row["body"], Execution) if row else None

    @staticmethod
    def _found(execution: Execution | None, name: str) -> Execution:
        if execution is None:
            raise NotFound(f"Resource '{name}' was not found")
        return execution

    def _save_job(self, job: Job) -> Job:
        self._database.execute(
            "INSERT OR REPLACE INTO run_jobs VALUES (?, ?)", job.name, encode(job).decode()
        )
        return job
