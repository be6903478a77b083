"""A process that is forked, and what it forks itself, end with the process that forked them."""

import asyncio
import os
import signal
import socket
import sys

import psutil
import pytest

from sublet.local.forks import ForkServer

A_SERVER_WITH_A_WORKER_IN_A_LONG_REQUEST = """\
import os, socket, time
os.fork()
here_i_am = socket.create_connection(socket.socket(fileno=3).getsockname())
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
@pytest.mark.parametrize("killed", ["the fork server", "the fork"])
def test_a_worker_of_a_unit_does_not_outlive_what_forked_it(tmp_path, killed):
    asyncio.run(_kill_and_wait_for_the_end_of_both(tmp_path, killed))


async def _kill_and_wait_for_the_end_of_both(directory, killed):
    program, log = directory / "unit.py", directory / "unit.log"
    program.write_text(A_SERVER_WITH_A_WORKER_IN_A_LONG_REQUEST)
    forks = ForkServer([])
    await forks.start(directory, log)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(0)
            fork = await forks.fork(
                [str(program)], environment={}, directory=directory, log=log, listener=listener
            )
            async with asyncio.timeout(30):
                for _ in ("the server", "its worker"):
                    await asyncio.get_running_loop().sock_accept(listener)
                forker = psutil.Process(fork.pid).ppid()
                os.kill(forker if killed == "the fork server" else fork.pid, signal.SIGKILL)
                await fork.wait()
    finally:
        await forks.stop()
