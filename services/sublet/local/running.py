"""What runs on a data directory: one at a time, in the foreground, until SIGINT or SIGTERM."""

import asyncio
import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sublet.errors import AlreadyExists
from sublet.local import state_file


class Runnable(Protocol):
    async def start(self) -> state_file.Stack: ...

    async def stop(self) -> None: ...


async def run_until_told(
    directory: Path, make: Callable[[], Runnable], ready: Callable[[state_file.Stack], None]
) -> None:
    """
    Make it, start it, and stop it when a signal says so.

    Raises:
        AlreadyExists: something runs on that data directory.
    """
    with _sole_user_of(directory):
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopped.set)
        stack = make()
        starting = asyncio.create_task(stack.start())
        try:
            await asyncio.wait(
                (starting, asyncio.create_task(stopped.wait())),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if starting.done():
                state = starting.result()
                state_file.write(directory, state)
                ready(state)
                await stopped.wait()
        finally:
            state_file.remove(directory)
            starting.cancel()
            await stack.stop()


@contextmanager
def _sole_user_of(directory: Path) -> Iterator[None]:
    """The lock goes with the process, however it ends."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(
                f"a stack runs on {directory} already; "
                f"stop it: sublet local down --data-dir {directory}"
            ) from None
        yield
