"""
One attempt of one task: a process with an identity, its own directory and nothing else, stopped by
SIGTERM and, ten seconds later, by SIGKILL.

Source: https://cloud.google.com/run/docs/container-contract#jobs
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import psutil

from sublet.local.iam.metadata import metadata_variables
from sublet.local.processes import end, kill, spawn
from sublet.local.run.resources import Execution, Task
from sublet.names import Email

GRACE: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended; `message` is empty if it did what it should."""

    exit_code: int = 0
    signal: int = 0
    message: str = ""


class Attempts:
    """
    `metadata_host_of` gives the address of the metadata server for a service account: all that a
    process gets beside its own container's environment.
    """

    def __init__(
        self, logs: Path, metadata_host_of: Callable[[Email], str | Awaitable[str]]
    ) -> None:
        self.logs = logs.absolute()
        self._metadata_host_of = metadata_host_of
        self.logs.mkdir(parents=True, exist_ok=True)

    async def run(
        self, execution: Execution, index: int, started: Callable[[int, float], None]
    ) -> Ended:
        """
        Run the task's process once.

        Args:
            started: is told its id and when the machine says it started, which together name it.
        """
        template = execution.template
        log = self.logs / execution.log_of(index)
        with tempfile.TemporaryDirectory(prefix="sublet-task-") as directory:
            try:
                process = await spawn(
                    [*template.command, *template.arguments],
                    environment=await self._environment(execution, index, directory),
                    directory=Path(directory),
                    log=log,
                )
            except OSError as error:
                return Ended(exit_code=127, message=f"the task did not start: {error}")
            with suppress(psutil.NoSuchProcess):  # it ended already
                started(process.pid, psutil.Process(process.pid).create_time())
            return await _outcome(process, template.timeout_s, log)

    async def _environment(
        self, execution: Execution, index: int, directory: str
    ) -> dict[str, str]:
        template = execution.template
        host = self._metadata_host_of(Email(template.service_account))
        if not isinstance(host, str):
            host = await host
        return {
            "HOME": directory,
            "TMPDIR": directory,
            **template.environment,
            "CLOUD_RUN_JOB": execution.job.rpartition("/")[2],
            "CLOUD_RUN_EXECUTION": execution.short_name,
            "CLOUD_RUN_TASK_INDEX": str(index),
            "CLOUD_RUN_TASK_ATTEMPT": str(execution.tasks[index].attempt),
            "CLOUD_RUN_TASK_COUNT": str(template.task_count),
            **metadata_variables(host),
        }


async def _outcome(process: asyncio.subprocess.Process, timeout_s: float, log: Path) -> Ended:
    try:
        code = await asyncio.wait_for(asyncio.shield(process.wait()), timeout_s)
    except TimeoutError:
        code = await end(process, grace=GRACE)
        message = f"the task ran past its timeout of {timeout_s:g} s; log: {log}"
        return Ended(exit_code=max(code, 0), signal=max(-code, 0), message=message)
    except asyncio.CancelledError:
        await end(process, grace=GRACE)
        raise
    finally:
        await kill(process)
    if code == 0:
        return Ended()
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return Ended(
        exit_code=max(code, 0),
        signal=max(-code, 0),
        message=f"the task ended with {how}; log: {log}",
    )


def kill_leftover(task: Task) -> None:
    """End a process of an earlier life, if the number still means that process."""
    try:
        process = psutil.Process(task.pid)
        if process.create_time() == task.process_started_at:
            for one in (*process.children(recursive=True), process):
                one.kill()
    except psutil.NoSuchProcess:
        pass
