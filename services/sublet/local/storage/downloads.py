"""
What a reader of an object's bytes is sent: the bytes or a span of them, what they hash to, and
gzip-encoded ones decompressed for whoever cannot read gzip.

Source: https://cloud.google.com/storage/docs/transcoding,
    https://cloud.google.com/storage/docs/xml-api/reference-headers
"""

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sublet.local.storage.ranges import parse_range
from sublet.local.storage.stored_object import StoredObject
from sublet.local.web import Response

PIECE_BYTES: Final = 2**18
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = zlib.MAX_WBITS | 16


def media(found: StoredObject, path: Path, headers: Mapping[str, str]) -> Response:
    """
    Raises:
        HttpError: 416, if the range that was asked for begins beyond the end.
    """
    answer = media_headers(found)
    if _is_to_be_decompressed(found, path, headers):
        return _decompressed(path, answer)
    wanted = parse_range(headers.get("range"), found.size)
    if wanted is None:
        answer["content-length"] = str(found.size)
        return Response(200, _span(path, 0, found.size), answer)
    start, end = wanted
    answer["content-range"] = f"bytes {start}-{end - 1}/{found.size}"
    answer["content-length"] = str(end - start)
    return Response(206, _span(path, start, end), answer)


def media_headers(found: StoredObject) -> dict[str, str]:
    settings = found.settings
    md5 = f",md5={found.md5}" if found.md5 else ""
    headers = {
        "accept-ranges": "bytes",
        "cache-control": settings.get("cacheControl", "private, max-age=0"),
        "content-type": settings.get("contentType", "application/octet-stream"),
        "etag": f'"{found.etag}"',
        "last-modified": f"{found.updated_at:%a, %d %b %Y %H:%M:%S} GMT",
        "x-goog-generation": str(found.generation),
        "x-goog-hash": f"crc32c={found.crc32c}{md5}",
        "x-goog-metageneration": str(found.metageneration),
        "x-goog-storage-class": found.storage_class,
        "x-goog-stored-content-encoding": settings.get("contentEncoding", "identity"),
        "x-goog-stored-content-length": str(found.size),
    }
    for field, header in (
        ("contentEncoding", "content-encoding"),
        ("contentDisposition", "content-disposition"),
        ("contentLanguage", "content-language"),
    ):
        if value := settings.get(field):
            headers[header] = value
    if settings.get("contentEncoding") == "gzip":
        headers["vary"] = "Accept-Encoding"
    return {name: _header_text(value) for name, value in headers.items()}


def _is_to_be_decompressed(found: StoredObject, path: Path, headers: Mapping[str, str]) -> bool:
    if found.settings.get("contentEncoding") != "gzip":
        return False
    if "gzip" in headers.get("accept-encoding", "").lower():
        return False
    if "no-transform" in found.settings.get("cacheControl", "").lower():
        return False
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def _decompressed(path: Path, headers: dict[str, str]) -> Response:
    """The whole of it, whatever range was asked for: nobody knows where a span would begin."""
    del headers["content-encoding"], headers["accept-ranges"]
    headers["warning"] = '214 UploadServer "gunzipped"'
    headers["x-guploader-response-body-transformations"] = "gunzipped"
    return Response(200, _gunzipped(path), headers)


def _gunzipped(path: Path) -> Iterator[bytes]:
    file = path.open("rb", buffering=0)

    def pieces() -> Iterator[bytes]:
        with file:
            decompressor = zlib.decompressobj(_GZIP_WINDOW)
            while compressed := file.read(PIECE_BYTES):
                while compressed:
                    if piece := decompressor.decompress(compressed, PIECE_BYTES):
                        yield piece
                    compressed = decompressor.unconsumed_tail
                    if decompressor.eof and decompressor.unused_data:  # a further member
                        compressed = decompressor.unused_data
                        decompressor = zlib.decompressobj(_GZIP_WINDOW)

    return pieces()


def _span(path: Path, start: int, end: int) -> Iterator[bytes]:
    """
    A span of a blob. It is opened now, so that an overwrite meanwhile does not end the reading.
    """
    file = path.open("rb", buffering=0)

    def pieces() -> Iterator[bytes]:
        with file:
            file.seek(start)
            left = end - start
            while left and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece

    return pieces()


def _header_text(value: str) -> str:
    """Text that cannot break out of its header; what Latin-1 lacks is replaced."""
    one_line = "".join(" " if ord(char) < 32 else char for char in value)
    return one_line.encode("latin-1", "replace").decode("latin-1")
