"""
An application called in this thread, by a client that thinks it is far away. A third of the CPU of
a client that keeps the application in a thread of its own.
"""

import asyncio
from typing import Any
from urllib.parse import unquote

import httpx


class InProcess(httpx.BaseTransport):
    """What the application raises is raised to whoever asked."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._loop = asyncio.new_event_loop()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer: dict[str, Any] = {}
        body = bytearray()
        unread = [{"type": "http.request", "body": request.read(), "more_body": False}]

        async def receive() -> dict[str, Any]:
            if not unread:
                await asyncio.Event().wait()  # nobody hangs up
            return unread.pop()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.update(status_code=message["status"], headers=message["headers"])
            else:
                body.extend(message.get("body", b""))

        self._loop.run_until_complete(self._app(_scope(request), receive, send))
        return httpx.Response(**answer, stream=httpx.ByteStream(bytes(body)))

    def close(self) -> None:
        self._loop.close()


def _scope(request: httpx.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": unquote(request.url.path),
        "raw_path": request.url.raw_path.partition(b"?")[0],
        "query_string": request.url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 50000),
        "server": (request.url.host, request.url.port or 80),
    }
