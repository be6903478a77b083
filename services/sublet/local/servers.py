"""HTTP servers on loopback, one for each part of the local cloud, all in one event loop."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import uvicorn

LOOPBACK: Final = "127.0.0.1"
_BACKLOG: Final = 2048
_GRACE_S: Final = 1


class Ports:
    """
    The same port for the same part at every start on a data directory, as far as it is still free.
    """

    def __init__(self, path: Path, chosen: dict[str, int]) -> None:
        self._path = path
        self._ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        self._chosen = chosen

    def listen(self, part: str) -> socket.socket:
        """
        Raises:
            OSError: the port that was asked for is taken.
        """
        listener = self._bound(part, socket.SO_REUSEADDR)
        listener.listen(_BACKLOG)
        return listener

    def reserve(self, part: str) -> socket.socket:
        """
        A port for a server that binds it itself: bound, not listening, shared with SO_REUSEPORT.
        """
        return self._bound(part, socket.SO_REUSEPORT)

    def _bound(self, part: str, option: int) -> socket.socket:
        if part in self._chosen:
            return _bind(self._chosen[part], option)
        try:
            bound = _bind(self._ports.get(part, 0), option)
        except OSError:
            bound = _bind(0, option)
        self._ports[part] = bound.getsockname()[1]
        self._path.write_text(json.dumps(self._ports, indent=1))
        return bound


def _bind(port: int, option: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, option, 1)
    # asyncio does this only for sockets that name their protocol, and gunicorn and uvicorn take
    # this one over; without it every answer on a kept connection waits 40 ms for a delayed ACK.
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError:
        bound.close()
        raise
    return bound


class HttpServers:
    def __init__(self) -> None:
        self._servers: list[tuple[_Server, asyncio.Task[None]]] = []

    async def serve(self, app: Any, listener: socket.socket) -> str:  # noqa: ANN401  any ASGI application
        """Serve an ASGI application and return its address, host:port, when it answers."""
        config = uvicorn.Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        self._servers.append((server, task))
        while not server.started:
            if task.done():
                task.result()
            await asyncio.sleep(0.001)
        host, port = listener.getsockname()
        return f"{host}:{port}"

    async def stop(self) -> None:
        for server, _ in self._servers:
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._servers))


class _Server(uvicorn.Server):
    """Signals are the stack's business, not each server's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
