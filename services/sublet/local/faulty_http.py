"""The faults of a network and of the servers behind it, in front of any ASGI application."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from sublet.local.faults import Fault, Faults
from sublet.local.web import Receive, Response, Scope, Send, json_response, send_response

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_PRECONDITIONS: Final = (b"ifgenerationmatch=", b"ifmetagenerationmatch=", b"ifgenerationnotmatch=")


class _Reset(Exception):
    """Raised in the application's way when the connection is gone."""


class FaultyHttp:
    """
    Args:
        part: begins every subject, which goes on with the method and the path.
        expire_token: what `token-expiry-now` does with a request's Authorization header.
    """

    def __init__(
        self,
        part: str,
        application: Application,
        faults: Faults,
        expire_token: Callable[[str], None],
    ) -> None:
        self._part = part
        self._application = application
        self._faults = faults
        self._expire_token = expire_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._faults.orders:
            await self._application(scope, receive, send)
            return
        subject = f"{self._part} {scope['method']} {scope['raw_path'].decode('latin-1')}"
        if wait := self._faults.delay(Fault.SLOW, subject):
            await asyncio.sleep(wait.total_seconds())
        if self._faults.strikes(Fault.RETURN_503, subject):
            await _refuse(503, "UNAVAILABLE", Fault.RETURN_503, receive, send)
            return
        if _is_conditional(scope) and self._faults.strikes(Fault.ETAG_CONFLICT, subject):
            await _refuse(412, "FAILED_PRECONDITION", Fault.ETAG_CONFLICT, receive, send)
            return
        token = _authorization(scope)
        if token and self._faults.strikes(Fault.TOKEN_EXPIRY_NOW, subject):
            self._expire_token(token)
        if _is_upload(scope) and self._faults.strikes(Fault.DISK_FULL, subject):
            receive = _filling_the_disk(receive)
        if self._faults.strikes(Fault.RESET_CONNECTION, subject):
            with suppress(_Reset):
                await self._application(scope, receive, _tearing(scope["method"], send))
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        await self._application(scope, receive, send)


def _is_conditional(scope: Scope) -> bool:
    query = scope["query_string"].lower()
    writes = scope["method"] in ("POST", "PUT", "PATCH", "DELETE")
    is_policy = scope["raw_path"].endswith((b"/iam", b":setIamPolicy"))
    return writes and (is_policy or any(name in query for name in _PRECONDITIONS))


def _is_upload(scope: Scope) -> bool:
    path: bytes = scope["raw_path"]
    return scope["method"] == "PUT" or (
        scope["method"] == "POST" and path.startswith((b"/upload/", b"/resumable/"))
    )


def _filling_the_disk(receive: Receive) -> Receive:
    """A body that cannot be kept, from its first piece on."""

    async def fail() -> dict[str, Any]:
        while (await receive()).get("more_body"):
            pass
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


def _authorization(scope: Scope) -> str:
    headers: Mapping[bytes, bytes] = dict(scope["headers"])
    return headers.get(b"authorization", b"").decode("latin-1")


async def _refuse(status: int, reason: str, fault: Fault, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    message = f"{fault}: somebody ordered this fault of the local cloud"
    error = {"code": status, "status": reason, "message": message, "errors": [{"reason": fault}]}
    refusal: Response = json_response({"error": error}, status)
    await send_response(refusal, send, is_head=False)


def _tearing(method: str, send: Send) -> Send:
    """Send nothing of an answer, or of a download the first piece, and cut the connection."""

    async def tear(message: dict[str, Any]) -> None:
        is_start = message["type"] == "http.response.start"
        if method == "GET":
            await send(message)
            if is_start:
                return
        cycle: Any = getattr(send, "__self__")  # noqa: B009  uvicorn's; ASGI knows no way to do this
        cycle.transport.abort()
        raise _Reset

    return tear
