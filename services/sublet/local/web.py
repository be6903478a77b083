"""
A small ASGI router for Google-style REST: paths are matched before they are decoded, since an
object's name may hold any byte; `:verb` ends a path; errors are Google's JSON. Bodies stream both
ways.
"""

import errno
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

from sublet.errors import InvalidRequest, SubletError

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MAX_JSON_BYTES: Final = 8 * 2**20


class HttpError(SubletError):
    """Raised for an answer that only HTTP has: 304, 308, 405, 416."""

    def __init__(self, status: int, message: str = "", headers: Mapping[str, str] | None = None):
        super().__init__(message or HTTPStatus(status).phrase)
        self.http_status = status
        self.headers = dict(headers or {})


@dataclass(slots=True)
class Request:
    """
    One HTTP request; `parameters` are the decoded parts of the path, `query` keeps the last value.
    """

    method: str
    raw_path: str
    parameters: dict[str, str]
    query: dict[str, str]
    query_items: list[tuple[str, str]]
    headers: dict[str, str]
    base_url: str
    _receive: Receive = field(repr=False)

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body as it arrives.

        Raises:
            ConnectionError: the client went away in the middle.
        """
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client closed the connection")
            if body := message.get("body"):
                yield body
            if not message.get("more_body"):
                return

    async def body(self, *, max_bytes: int = MAX_JSON_BYTES) -> bytes:
        held = bytearray()
        async for chunk in self.chunks():
            held += chunk
            if len(held) > max_bytes:
                raise HttpError(413, f"the request body is larger than {max_bytes} bytes")
        return bytes(held)

    async def json(self, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
        """The body as a JSON object; an empty body is an empty object."""
        body = await self.body(max_bytes=max_bytes)
        if not body:
            return {}
        try:
            value = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"the body is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise InvalidRequest("the body is not a JSON object")
        return value

    def flag(self, name: str) -> bool:
        """A boolean of the query; Python's clients send `True`, others `true`."""
        return self.query.get(name, "").lower() == "true"


@dataclass(slots=True)
class Response:
    status: int = 200
    body: bytes | Iterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(
        status, body, {"content-type": "application/json; charset=UTF-8", **(headers or {})}
    )


Handler = Callable[[Request], Awaitable[Response]]


class Router:
    """An ASGI application; `error_body` writes an error as the API in question does."""

    def __init__(self, error_body: Callable[[int, SubletError], object] | None = None) -> None:
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._error_body = error_body or google_error

    def route(self, method: str, template: str) -> Callable[[Handler], Handler]:
        """Register a handler; `{x}` is one segment of the path, `{x...}` is the rest of it."""

        def register(handler: Handler) -> Handler:
            self.add(method, template, handler)
            return handler

        return register

    def add(self, method: str, template: str, handler: Handler) -> None:
        self._routes.append((method, _compiled(template), handler))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            response = await self.respond(scope, receive)
        except ConnectionError:
            return
        await send_response(response, send, is_head=scope["method"] == "HEAD")

    async def respond(self, scope: Scope, receive: Receive) -> Response:
        """The answer to one request, an error's too; sending it is another matter."""
        try:
            return await self._answer(scope, receive)
        except SubletError as error:
            return self._error_response(error)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            message = "no space left on the device that the local cloud keeps its state on"
            return self._error_response(HttpError(507, message))

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        raw_path = scope["raw_path"].decode("ascii", "surrogateescape")
        handler, parameters = self._match(scope["method"], raw_path)
        items = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True)
        host, port = scope["server"]
        request = Request(
            method=scope["method"],
            raw_path=raw_path,
            parameters=parameters,
            query=dict(items),
            query_items=items,
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
            base_url=f"http://{host}:{port}",
            _receive=receive,
        )
        return await handler(request)

    def _match(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]]:
        allowed = set()
        for route_method, pattern, handler in self._routes:
            if found := pattern.fullmatch(raw_path):
                if route_method in (method, "*") or (route_method, method) == ("GET", "HEAD"):
                    return handler, {k: _decoded(v) for k, v in found.groupdict().items()}
                allowed.add(route_method)
        if allowed:
            raise HttpError(405, f"{method} is not allowed here", {"allow": ", ".join(allowed)})
        raise HttpError(404, f"no such path: {method} {raw_path}")

    def _error_response(self, error: SubletError) -> Response:
        if isinstance(error, HttpError):
            if error.http_status in (304, 308):
                return Response(error.http_status, headers=error.headers)
            return json_response(
                self._error_body(error.http_status, error), error.http_status, error.headers
            )
        return json_response(self._error_body(error.status, error), error.status)


def google_error(status: int, error: SubletError) -> object:
    """The form of the newer APIs: https://cloud.google.com/apis/design/errors."""
    return {"error": {"code": status, "message": str(error), "status": error.reason}}


def _compiled(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+(?:\.\.\.)?)\}", template)
    pattern = ""
    for position, part in enumerate(parts):
        if position % 2 == 0:
            pattern += re.escape(part)
        elif part.endswith("..."):
            pattern += f"(?P<{part[:-3]}>.*)"
        else:
            has_verb = position + 1 < len(parts) and parts[position + 1].startswith(":")
            pattern += f"(?P<{part}>[^/:]+)" if has_verb else f"(?P<{part}>[^/]+)"
    return re.compile(pattern)


def _decoded(raw: str) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidRequest("a part of the path is not valid UTF-8") from None


async def send_response(response: Response, send: Send, *, is_head: bool) -> None:
    headers = dict(response.headers)
    if isinstance(response.body, bytes):
        headers.setdefault("content-length", str(len(response.body)))
    raw_headers = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw_headers})
    if is_head:
        await send({"type": "http.response.body", "body": b""})
    elif isinstance(response.body, bytes):
        await send({"type": "http.response.body", "body": response.body})
    else:
        for chunk in response.body:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
