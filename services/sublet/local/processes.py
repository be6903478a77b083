"""
Processes of the local cloud: an environment of their own, a log, and no life after their parent's.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

_LIFELINE: Final = Path(__file__).with_name("lifeline.py")
_NO_LISTENER: Final = -1


async def spawn(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: Path,
    log: Path,
    listener: socket.socket | None = None,
) -> asyncio.subprocess.Process:
    """
    Start a program in a session of its own, with nothing of the caller's environment but PATH.

    Args:
        listener: a listening socket that the program finds as systemd would pass it: whoever
            connects before the program is ready waits instead of being refused.
    """
    fd = listener.fileno() if listener else _NO_LISTENER
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *on_a_lifeline(arguments, fd),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            cwd=directory,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8", **environment},
            pass_fds=() if listener is None else (fd,),
            start_new_session=True,
        )


def on_a_lifeline(arguments: Sequence[str], listener: int = _NO_LISTENER) -> list[str]:
    """The command that runs the program so that it does not outlive the calling process."""
    python = [sys.executable, "-I", "-S"]
    return [*python, str(_LIFELINE), str(os.getpid()), str(listener), *arguments]


async def end(process: asyncio.subprocess.Process, *, grace: timedelta) -> int:
    """
    SIGTERM to the whole session, SIGKILL to what is left of it after the grace; the exit code.
    """
    _signal(process.pid, signal.SIGTERM)
    try:
        code = await asyncio.wait_for(process.wait(), grace.total_seconds())
    except TimeoutError:
        code = await kill(process)
    _signal(process.pid, signal.SIGKILL)
    return code


async def kill(process: asyncio.subprocess.Process) -> int:
    _signal(process.pid, signal.SIGKILL)
    return await process.wait()


def _signal(session: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(session, number)
