"""
multipart/related, read as a stream: a JSON part, then the media, whose end is known only by the
boundary.

Source: https://www.rfc-editor.org/rfc/rfc2387
"""

import re
from collections.abc import AsyncIterator

from sublet.errors import InvalidRequest

_MAX_HEADER_BYTES = 2**20


class RelatedParts:
    """Call `metadata`, `content_type` and `media` in that order; at most one chunk is held."""

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        found = re.search(r"boundary=(?:\"([^\"]+)\"|'([^']+)'|([^\s;]+))", content_type)
        if found is None:
            raise InvalidRequest("a multipart upload must name its boundary")
        self._boundary = next(filter(None, found.groups())).encode()
        self._chunks = chunks
        self._held = bytearray()
        self._newline = b"\r\n"

    async def metadata(self) -> bytes:
        await self._until(b"--" + self._boundary)
        headers = await self._headers()
        if not headers.startswith(b"\r\n"):
            self._newline = b"\n"  # gcloud and gcsfs end lines so; the media then ends so, too
        return (await self._until(b"\n--" + self._boundary)).strip()

    async def content_type(self) -> str | None:
        headers = await self._headers()
        found = re.search(rb"(?im)^content-type:\s*(.+?)\s*$", headers)
        return found[1].decode("latin-1") if found else None

    async def media(self) -> AsyncIterator[bytes]:
        """The media's bytes; the last few of each chunk wait until they cannot be the boundary."""
        end = self._newline + b"--" + self._boundary
        while True:
            position = self._held.find(end)
            if position >= 0:
                yield bytes(self._held[:position])
                return
            safe = len(self._held) - len(end)
            if safe > 0:
                yield bytes(self._held[:safe])
                del self._held[:safe]
            await self._more()

    async def _headers(self) -> bytes:
        """What stands before the empty line, which may end in CRLF or LF."""
        while True:
            if found := re.search(rb"\r?\n\r?\n", self._held):
                headers = bytes(self._held[: found.start()])
                del self._held[: found.end()]
                return headers
            await self._more(bounded=True)

    async def _until(self, mark: bytes) -> bytes:
        while (position := self._held.find(mark)) < 0:
            await self._more(bounded=True)
        before = bytes(self._held[:position])
        del self._held[: position + len(mark)]
        return before

    async def _more(self, *, bounded: bool = False) -> None:
        if bounded and len(self._held) > _MAX_HEADER_BYTES:
            raise InvalidRequest("the metadata part of a multipart upload is too large")
        try:
            self._held += await anext(self._chunks)
        except StopAsyncIteration:
            raise InvalidRequest("the multipart body ends before its boundary") from None
