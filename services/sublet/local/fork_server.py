"""
A process that has imported what others need, and forks into them: `fork_server.py CHANNEL MODULE
...`

The deploy units load the same libraries. Here they are loaded once, their memory is shared until it
is written to, and a unit is there in a tenth of a second. What a fork becomes is the same program
as in the cloud, with a session and an environment of its own. Nothing of sublet.local is imported,
so that no unit has any of it loaded.

CHANNEL is the descriptor of a stream socket. Each request is a line of JSON (program, environment,
directory) with three descriptors (log, pulse, listener); the answer is a line with the process's
id. The pulse is the write end of a pipe: whoever reads its other end learns when the process and
all that it started are gone. The listener is handed on as systemd does (descriptor 3, LISTEN_FDS).
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_FIRST_PASSED_DESCRIPTOR = 3
_OUT_OF_THE_WAY = 64
_PIECE = 1 << 16


def serve(channel: socket.socket) -> list[str]:
    """
    Fork at each request, until the other side hangs up.

    Returns:
        In each fork: the program to become, name and arguments.
    """
    while True:
        line, descriptors = _next_request(channel)
        if not line:
            sys.exit()
        pid = os.fork()
        if not pid:
            channel.close()
            return _settle_in(json.loads(line), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        channel.sendall(b"%d\n" % pid)


def _next_request(channel: socket.socket) -> tuple[bytes, list[int]]:
    line, descriptors, _, _ = socket.recv_fds(channel, _PIECE, 3)
    while line and not line.endswith(b"\n"):
        line += channel.recv(_PIECE)
    return line, descriptors


def _let_no_fork_outlive_its_parent() -> None:
    """
    A unit's own workers too: one that is in the middle of a request would go on for as long as its
    server's grace, on sockets and files that the next start has taken over.
    """
    parent = os.getpid()

    def remember() -> None:
        nonlocal parent
        parent = os.getpid()

    def die_with_parent() -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before this fork began
            os.kill(os.getpid(), signal.SIGKILL)

    os.register_at_fork(before=remember, after_in_child=die_with_parent)


def _settle_in(request: dict[str, Any], log: int, pulse: int, listener: int) -> list[str]:
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log, pulse, listener = (
        fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        for descriptor in (log, pulse, listener)
    )
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    os.dup2(listener, _FIRST_PASSED_DESCRIPTOR)
    os.environ.clear()
    os.environ |= request["environment"]
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
    os.chdir(request["directory"])
    program: list[str] = request["program"]
    return program


if __name__ == "__main__":
    gc.disable()
    for module in sys.argv[2:]:
        importlib.import_module(module)
    gc.enable()
    gc.collect()
    gc.freeze()  # the collector would write into every page that the forks share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    _let_no_fork_outlive_its_parent()
    sys.argv = serve(socket.socket(fileno=int(sys.argv[1])))
    runpy.run_path(sys.argv[0], run_name="__main__")
