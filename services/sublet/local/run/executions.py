"""
Running executions: each task is a process, retried as the job says, so many at once as it says. A
task whose process was lost with the machine (the local cloud was killed) is an attempt that failed.

Source: https://cloud.google.com/run/docs/create-jobs
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from sublet.local.run.attempts import Attempts, Ended, kill_leftover
from sublet.local.run.audit import AuditEvent, execution_ended
from sublet.local.run.jobs import RunState
from sublet.local.run.resources import Execution, Outcome, Task
from sublet.names import Email
from sublet.ports import Clock

MAX_AT_ONCE: Final = 32
"""Tasks of one execution: the real service has more machines than this one has cores."""


class Executions:
    """
    `metadata_host_of` gives the address of the metadata server for a service account. Whoever
    subscribes is told of every execution that ends.
    """

    def __init__(
        self,
        state: RunState,
        clock: Clock,
        *,
        logs: Path,
        metadata_host_of: Callable[[Email], str | Awaitable[str]],
    ) -> None:
        self._state = state
        self._clock = clock
        self._attempts = Attempts(logs, metadata_host_of)
        self._running: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._subscribers: list[Callable[[AuditEvent], None]] = []

    @property
    def logs(self) -> Path:
        return self._attempts.logs

    def subscribe(self, on_execution_ended: Callable[[AuditEvent], None]) -> None:
        """
        Be told of every end, soon after it; at least once, and again after a restart if the call
        did not return. It should only take note, since everything waits for it. Subscribe before
        `resume`, so that nothing that ended in an earlier life is missed.
        """
        self._subscribers.append(on_execution_ended)

    def start(self, execution: Execution) -> None:
        """Start every task that is not over; also what a restart finds unfinished."""
        self._ended.setdefault(execution.name, asyncio.Event())
        turns = asyncio.Semaphore(
            min(execution.template.parallelism or MAX_AT_ONCE, MAX_AT_ONCE, len(execution.tasks))
        )
        for index, task in enumerate(execution.tasks):
            if task.outcome is Outcome.RUNNING:
                place = (execution.name, index)
                self._running[place] = asyncio.create_task(self._run(*place, turns))
                self._running[place].add_done_callback(partial(self._let_go, place))

    def resume(self) -> None:
        """
        After a restart: whatever was running was lost with its machine, and counts as a failed try.
        """
        for execution in self._state.running():
            for index, task in enumerate(execution.tasks):
                if task.outcome is Outcome.RUNNING and task.pid:
                    kill_leftover(task)
                    lost = Ended(message="the instance was lost")
                    self._attempt_failed(execution.name, index, lost)
                elif task.outcome is Outcome.RUNNING and execution.is_cancelled:
                    self._cancelled(execution.name, index)
            self.start(self._state.execution(execution.name))
            self._finish_if_over(execution.name)

    async def cancel(self, name: str) -> Execution:
        """End what runs of an execution; one that is over stays as it is."""
        execution = self._state.execution(name)
        if execution.outcome is not Outcome.RUNNING:
            return execution
        self._state.save(replace(execution, is_cancelled=True))
        running = [task for (one, _), task in self._running.items() if one == name]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for index, left in enumerate(self._state.execution(name).tasks):
            if left.outcome is Outcome.RUNNING:  # it was cancelled before its first step
                self._cancelled(name, index)
        self._finish_if_over(name)
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

    async def _run(self, name: str, index: int, turns: asyncio.Semaphore) -> None:
        """One task, attempt by attempt, until it succeeds, runs out of tries or is cancelled."""
        try:
            async with turns:
                first = self._task(name, index).started_at or self._clock.now()
                self._set_task(name, index, started_at=first)
                while self._task(name, index).outcome is Outcome.RUNNING:
                    await self._attempt(name, index)
        except asyncio.CancelledError:
            if not self._state.execution(name).is_cancelled:
                raise
            self._cancelled(name, index)
        self._finish_if_over(name)

    def _let_go(self, place: tuple[str, int], run: asyncio.Task[None]) -> None:
        """A defect of ours leaves its execution running for ever: say so at once, and loudly."""
        self._running.pop(place, None)
        if not run.cancelled() and (error := run.exception()):
            run.get_loop().call_exception_handler(
                {"message": f"the local cloud lost task {place}", "exception": error, "task": run}
            )

    async def _attempt(self, name: str, index: int) -> None:
        def started(pid: int, process_started_at: float) -> None:
            self._set_task(name, index, pid=pid, process_started_at=process_started_at)

        ended = await self._attempts.run(self._state.execution(name), index, started)
        if ended.message:
            self._attempt_failed(name, index, ended)
        else:
            self._over(name, index, Outcome.SUCCEEDED, ended)

    def _attempt_failed(self, name: str, index: int, ended: Ended) -> None:
        execution = self._state.execution(name)
        task = execution.tasks[index]
        if execution.is_cancelled:
            self._cancelled(name, index)
        elif task.attempt >= execution.template.max_retries:
            self._over(name, index, Outcome.FAILED, ended)
        else:
            self._set_task(
                name,
                index,
                attempt=task.attempt + 1,
                pid=0,
                message=ended.message,
                exit_code=ended.exit_code,
                signal=ended.signal,
            )

    def _cancelled(self, name: str, index: int) -> None:
        self._over(name, index, Outcome.CANCELLED, Ended(message="cancelled"))

    def _over(self, name: str, index: int, outcome: Outcome, ended: Ended) -> None:
        self._set_task(
            name,
            index,
            outcome=outcome,
            pid=0,
            message=ended.message,
            exit_code=ended.exit_code,
            signal=ended.signal,
            ended_at=self._clock.now(),
        )

    def _task(self, name: str, index: int) -> Task:
        return self._state.execution(name).tasks[index]

    def _set_task(self, name: str, index: int, **changes: object) -> None:
        execution = self._state.execution(name)
        task: Task = replace(execution.tasks[index], **changes)  # type: ignore[arg-type]
        self._state.save(execution.with_task(index, task))

    def _finish_if_over(self, name: str) -> None:
        execution = self._state.find_execution(name)
        if execution is None or execution.outcome is Outcome.RUNNING:
            return
        if execution.ended_at is None:
            execution = replace(execution, ended_at=self._clock.now())
            self._state.save(execution)
        if ended := self._ended.pop(name, None):
            ended.set()
        self._report(execution)

    def _report(self, execution: Execution) -> None:
        if execution.is_reported:
            return
        event = execution_ended(execution)
        try:
            for tell in self._subscribers:
                tell(event)
        except Exception as error:  # noqa: BLE001  somebody else's; the execution did end
            asyncio.get_running_loop().call_exception_handler(
                {"message": f"nobody took the end of {execution.name}", "exception": error}
            )
            return
        self._state.save(replace(execution, is_reported=True))
