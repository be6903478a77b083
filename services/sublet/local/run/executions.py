"""
Running executions: each task is a process, retried as the job says, stopped by SIGTERM and then
SIGKILL. A task whose process was lost with the machine (the local cloud was killed) is an attempt
that failed.

Source: https://cloud.google.com/run/docs/container-contract#jobs
"""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from sublet.local.iam.metadata import metadata_variables
from sublet.local.processes import end, kill, spawn
from sublet.local.run.jobs import Execution, Outcome, RunState, Task
from sublet.names import Email
from sublet.ports import Clock

GRACE: Final = timedelta(seconds=10)


class Executions:
    """
    `metadata_host_of` gives the address of the metadata server for a service account: all that a
    process gets beside its own container's environment.
    """

    def __init__(
        self,
        state: RunState,
        clock: Clock,
        *,
        logs: Path,
        metadata_host_of: Callable[[Email], str],
    ) -> None:
        self._state = state
        self._clock = clock
        self._logs = logs
        self._metadata_host_of = metadata_host_of
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ended: dict[str, asyncio.Event] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, execution: Execution) -> None:
        """Start every task that is not over; also what a restart finds unfinished."""
        self._ended.setdefault(execution.name, asyncio.Event())
        for index, task in enumerate(execution.tasks):
            if task.outcome is Outcome.RUNNING:
                place = (execution.name, index)
                self._running[place] = asyncio.create_task(self._run(execution.name, index))

    def resume(self) -> None:
        """
        After a restart: whatever was running was lost with its machine, and counts as a failed try.
        """
        for execution in self._state.running():
            for index, task in enumerate(execution.tasks):
                if task.outcome is Outcome.RUNNING and task.pid:
                    _kill_leftover(task)
                    self._attempt_failed(execution.name, index, "the instance was lost")
            self.start(self._state.execution(execution.name))
            self._finish_if_over(execution.name)

    async def cancel(self, name: str) -> Execution:
        self._state.save(replace(self._state.execution(name), is_cancelled=True))
        running = [task for (execution, _), task in self._running.items() if execution == name]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return self._state.execution(name)

    async def wait(self, name: str, timeout_s: float) -> Execution:
        """The execution, once it is over or the time is up."""
        if (ended := self._ended.get(name)) and not ended.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), timeout_s)
        return self._state.execution(name)

    async def stop(self) -> None:
        """
        End every process, leaving the executions unfinished: the next start goes on with them.
        """
        running = list(self._running.values())
        for task in running:
            task.cancel("the local cloud stops")
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, name: str, index: int) -> None:
        """One task, attempt by attempt, until it succeeds, runs out of tries or is cancelled."""
        try:
            while self._state.execution(name).tasks[index].outcome is Outcome.RUNNING:
                message = await self._attempt(name, index)
                if message is None:
                    self._set_task(name, index, outcome=Outcome.SUCCEEDED, pid=0, message="")
                else:
                    self._attempt_failed(name, index, message)
        except asyncio.CancelledError:
            if not self._state.execution(name).is_cancelled:
                raise
            self._set_task(name, index, outcome=Outcome.CANCELLED, pid=0, message="cancelled")
        finally:
            self._running.pop((name, index), None)
        self._finish_if_over(name)

    async def _attempt(self, name: str, index: int) -> str | None:
        """Run the process once; None if it succeeded, else what became of it."""
        execution = self._state.execution(name)
        template = execution.template
        log = self._logs / f"{name.rpartition('/')[2]}-task{index}.log"
        with tempfile.TemporaryDirectory(prefix="sublet-task-") as directory:
            process = await spawn(
                [*template.command, *template.arguments],
                environment=self._environment(execution, index, directory),
                directory=Path(directory),
                log=log,
            )
            with suppress(psutil.NoSuchProcess):  # it ended already
                started_at = psutil.Process(process.pid).create_time()
                self._set_task(name, index, pid=process.pid, process_started_at=started_at)
            try:
                code = await asyncio.wait_for(asyncio.shield(process.wait()), template.timeout_s)
            except TimeoutError:
                await end(process, grace=GRACE)
                return f"the task ran past its timeout of {template.timeout_s:g} s; log: {log}"
            except asyncio.CancelledError:
                await end(process, grace=GRACE)
                raise
            finally:
                await kill(process)
        if code == 0:
            return None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"the task ended with {how}; log: {log}"

    def _environment(self, execution: Execution, index: int, directory: str) -> dict[str, str]:
        template = execution.template
        task = execution.tasks[index]
        return {
            "HOME": directory,
            "TMPDIR": directory,
            **template.environment,
            "CLOUD_RUN_JOB": execution.job.rpartition("/")[2],
            "CLOUD_RUN_EXECUTION": execution.name.rpartition("/")[2],
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_ATTEMPT": str(task.attempt),
            "CLOUD_RUN_TASK_COUNT": str(template.task_count),
            **metadata_variables(self._metadata_host_of(Email(template.service_account))),
        }

    def _attempt_failed(self, name: str, index: int, message: str) -> None:
        execution = self._state.execution(name)
        task = execution.tasks[index]
        if execution.is_cancelled:
            self._set_task(name, index, outcome=Outcome.CANCELLED, pid=0, message="cancelled")
        elif task.attempt >= execution.template.max_retries:
            self._set_task(name, index, outcome=Outcome.FAILED, pid=0, message=message)
        else:
            self._set_task(name, index, attempt=task.attempt + 1, pid=0, message=message)

    def _set_task(self, name: str, index: int, **changes: object) -> None:
        execution = self._state.execution(name)
        task: Task = replace(execution.tasks[index], **changes)  # type: ignore[arg-type]
        self._state.save(execution.with_task(index, task))

    def _finish_if_over(self, name: str) -> None:
        execution = self._state.execution(name)
        if execution.outcome is Outcome.RUNNING:
            return
        if execution.ended_at is None:
            self._state.save(replace(execution, ended_at=self._clock.now()))
        if ended := self._ended.pop(name, None):
            ended.set()


def _kill_leftover(task: Task) -> None:
    """End a process of an earlier life, if the number still means that process."""
    try:
        process = psutil.Process(task.pid)
        if process.create_time() == task.process_started_at:
            for one in (*process.children(recursive=True), process):
                one.kill()
    except psutil.NoSuchProcess:
        pass
