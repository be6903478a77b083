"""Processes that are forked from one that has imported their libraries already."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from sublet.local.processes import bare_environment, end, signal_session, spawn

_SERVER: Final = Path(__file__).with_name("fork_server.py")


class Fork:
    """A process in a session of its own; it has ended when nothing of that session holds on."""

    def __init__(self, pid: int, pulse: int) -> None:
        self.pid = pid
        self._ended = asyncio.Event()
        self._pulse = pulse
        asyncio.get_running_loop().add_reader(pulse, self._has_ended)

    @property
    def is_alive(self) -> bool:
        return not self._ended.is_set()

    async def wait(self) -> None:
        await self._ended.wait()

    async def end(self, *, grace: timedelta) -> None:
        """SIGTERM to the whole session, SIGKILL to what is left of it after the grace."""
        signal_session(self.pid, signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.wait(), grace.total_seconds())
            return
        signal_session(self.pid, signal.SIGKILL)
        await self.wait()

    def _has_ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pulse)
        os.close(self._pulse)
        self._ended.set()


class ForkServer:
    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._one_at_a_time = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None

    async def start(self, directory: Path, log: Path) -> None:
        self._channel, theirs = socket.socketpair()
        self._channel.settimeout(0)
        with theirs:
            self._process = await spawn(
                [sys.executable, "-I", str(_SERVER), str(theirs.fileno()), *self._modules],
                environment={},
                directory=directory,
                log=log,
                descriptors=[theirs.fileno()],
            )

    async def stop(self) -> None:
        """What was forked has ended before."""
        if self._channel:
            self._channel.close()
        if self._process:
            await end(self._process, grace=timedelta(0))

    async def fork(
        self,
        program: Sequence[str],
        *,
        environment: Mapping[str, str],
        directory: Path,
        log: Path,
        listener: socket.socket,
    ) -> Fork:
        """
        A new process that becomes a Python program, with nothing of the caller's environment but
        PATH. It finds the listening socket as systemd would pass it: whoever connects before it is
        ready waits instead of being refused.
        """
        assert self._channel
        request = {
            "program": list(program),
            "environment": bare_environment(environment),
            "directory": str(directory),
        }
        ours, theirs = os.pipe()
        with log.open("ab") as output:
            descriptors = [output.fileno(), theirs, listener.fileno()]
            async with self._one_at_a_time:
                socket.send_fds(self._channel, [json.dumps(request).encode() + b"\n"], descriptors)
                os.close(theirs)
                answer = await asyncio.get_running_loop().sock_recv(self._channel, 64)
        return Fork(int(answer), ours)
