"""
Batches: several requests for metadata in one, answered together; each is decided on its own.

Source: https://cloud.google.com/storage/docs/batch
"""

import re
import secrets
from typing import Any, Final
from urllib.parse import urlsplit

from sublet.errors import InvalidRequest
from sublet.local.web import Request, Response, Router

_MAX_CALLS: Final = 100
_REQUEST_LINE: Final = re.compile(r"([A-Z]+) (\S+)(?: HTTP/1\.[01])?")
_PARTS: Final = re.compile(rb"\r?\n")
_NOT_BATCHED: Final = ("/batch/", "/download/", "/resumable/", "/upload/")


class BatchApi:
    def __init__(self, router: Router) -> None:
        self._router = router

    def add_to(self, router: Router) -> None:
        router.add("POST", "/batch/storage/v1", self.batch)
        router.add("POST", "/batch", self.batch)

    async def batch(self, request: Request) -> Response:
        boundary = re.search(r'boundary="?([^";\s]+)', request.headers.get("content-type", ""))
        if boundary is None:
            raise InvalidRequest("a batch must be multipart/mixed and name its boundary")
        parts = _parts(await request.body(), boundary[1].encode())
        if not 1 <= len(parts) <= _MAX_CALLS:
            raise InvalidRequest(f"got {len(parts)} calls in a batch; expected 1 to {_MAX_CALLS}")
        mark = f"batch_{secrets.token_hex(12)}"
        answers = [
            await self._answer(part, request, position) for position, part in enumerate(parts)
        ]
        body = b"".join(b"--%s\r\n%s\r\n" % (mark.encode(), answer) for answer in answers)
        return Response(
            200,
            body + b"--%s--\r\n" % mark.encode(),
            {"content-type": f"multipart/mixed; boundary={mark}"},
        )

    async def _answer(self, part: bytes, outer: Request, position: int) -> bytes:
        envelope, inner = _split_headers(part)
        line, _, rest = inner.lstrip().partition(b"\n")
        call = _REQUEST_LINE.fullmatch(line.decode("latin-1").strip())
        if call is None:
            raise InvalidRequest(f"got {line[:80]!r} in a batch; expected METHOD PATH HTTP/1.1")
        headers, body = _split_headers(rest if rest.strip() else b"\n\n")
        response = await self._router.respond(
            _scope(call[1], call[2], {**_inherited(outer), **headers}, outer), _receiver(body)
        )
        content_id = envelope.get("content-id", f"<{position}>").strip("<>")
        return _written(response, content_id)


def _scope(method: str, url: str, headers: dict[str, str], outer: Request) -> dict[str, Any]:
    target = urlsplit(url)
    if target.path.startswith(_NOT_BATCHED):
        raise InvalidRequest(f"got {target.path} in a batch; uploads and downloads go on their own")
    host, _, port = urlsplit(outer.base_url).netloc.partition(":")
    return {
        "type": "http",
        "method": method,
        "path": target.path,
        "raw_path": target.path.encode(),
        "query_string": target.query.encode(),
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        "server": (host, int(port)),
    }


def _receiver(body: bytes) -> Any:  # noqa: ANN401  ASGI's receive
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _inherited(outer: Request) -> dict[str, str]:
    """What the outer request says of who asks holds for each call that says nothing of it."""
    return {"authorization": outer.authorization} if outer.authorization else {}


def _parts(body: bytes, boundary: bytes) -> list[bytes]:
    pieces = re.split(rb"(?:^|\r?\n)--" + re.escape(boundary), body)
    return [_PARTS.split(piece, 1)[1] for piece in pieces[1:] if not piece.startswith(b"--")]


def _split_headers(text: bytes) -> tuple[dict[str, str], bytes]:
    """Header lines and what follows the empty line, which may end in CRLF or LF."""
    head, *rest = re.split(rb"(?:^|\r?\n)\r?\n", text, maxsplit=1)
    headers = {}
    for line in head.decode("latin-1").splitlines():
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return headers, rest[0] if rest else b""


def _written(response: Response, content_id: str) -> bytes:
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    headers = {**response.headers, "content-length": str(len(body))}
    lines = [
        "Content-Type: application/http",
        f"Content-ID: <response-{content_id}>",
        "",
        f"HTTP/1.1 {response.status} {_phrase(response.status)}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1", "replace") + body


def _phrase(status: int) -> str:
    return "OK" if status < 300 else "Not OK"
