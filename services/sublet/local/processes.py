"""
Processes of the local cloud: an environment of their own, a log, and no life after their parent's.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

_LIFELINE: Final = Path(__file__).with_name("lifeline.py")


async def spawn(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    descriptors: Sequence[int] = (),
) -> asyncio.subprocess.Process:
    """
    Start a program in a session of its own, with nothing of the caller's environment but PATH.

    Args:
        descriptors: open files that the program inherits, by the same numbers.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *on_a_lifeline(arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            cwd=directory,
            env=bare_environment(environment),
            pass_fds=descriptors,
            start_new_session=True,
        )


def bare_environment(variables: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **variables}


def on_a_lifeline(arguments: Sequence[str]) -> list[str]:
    """The command that runs the program so that it does not outlive the calling process."""
    return [sys.executable, "-I", "-S", str(_LIFELINE), str(os.getpid()), *arguments]


async def end(process: asyncio.subprocess.Process, *, grace: timedelta) -> int:
    """
    SIGTERM to the whole session, SIGKILL to what is left of it after the grace; the exit code.
    """
    signal_session(process.pid, signal.SIGTERM)
    try:
        code = await asyncio.wait_for(process.wait(), grace.total_seconds())
    except TimeoutError:
        code = await kill(process)
    signal_session(process.pid, signal.SIGKILL)
    return code


async def kill(process: asyncio.subprocess.Process) -> int:
    signal_session(process.pid, signal.SIGKILL)
    return await process.wait()


def signal_session(session: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, number)
