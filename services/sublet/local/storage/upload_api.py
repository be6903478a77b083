"""
Uploads as the JSON API takes them: media, multipart and resumable.

Source: https://cloud.google.com/storage/docs/uploads-downloads
"""

import json
import re
from collections.abc import AsyncIterator
from typing import Any, Final

from sublet.errors import InvalidRequest
from sublet.local.iam.tokens import Caller
from sublet.local.storage.multipart import RelatedParts
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.service import Storage
from sublet.local.storage.stored_object import StoredObject
from sublet.local.storage.uploads import ContentRange
from sublet.local.web import HttpError, Request, Response, Router, json_response

_PATH: Final = "/upload/storage/v1/b/{bucket}/o"


class UploadApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._uploads = storage.uploads

    def add_to(self, router: Router) -> None:
        for path in (_PATH, f"/resumable{_PATH}"):  # gcloud uses the second
            router.add("POST", path, self.post)
            router.add("PUT", path, self.put)
            router.add("DELETE", path, self.cancel)

    async def post(self, request: Request) -> Response:
        if "upload_id" in request.query:
            return await self.put(request)
        match request.query.get("uploadType"):
            case "media":
                return await self._media(request)
            case "multipart":
                return await self._multipart(request)
            case "resumable":
                return await self._start(request)
        raise InvalidRequest("uploadType must be media, multipart or resumable")

    async def put(self, request: Request) -> Response:
        """
        One piece of a resumable upload; no token is asked for, the session's id is the credential.
        """
        upload = request.query.get("upload_id", "")
        length = request.headers.get("content-length")
        content_range = request.headers.get("content-range")
        piece = ContentRange.parse(content_range, int(length) if length else None)
        hashes = hashes_of_header(request.headers.get("x-goog-hash", ""))
        taken = await self._uploads.append(upload, piece, request.chunks(), hashes)
        if isinstance(taken, StoredObject):
            return json_response(taken.to_wire(request.base_url))
        kept = {"range": f"bytes=0-{taken - 1}"} if taken else {}
        raise HttpError(
            308, headers={"x-guploader-uploadid": upload, "content-length": "0", **kept}
        )

    async def cancel(self, request: Request) -> Response:
        """499 is how Cloud Storage says that the session is no more."""
        self._uploads.cancel(request.query.get("upload_id", ""))
        return Response(499)

    async def _media(self, request: Request) -> Response:
        settings = {"contentType": request.headers.get("content-type", "application/octet-stream")}
        if encoding := request.query.get("contentEncoding"):
            settings["contentEncoding"] = encoding
        return await self._store(request, _required_name(request, {}), settings, request.chunks())

    async def _multipart(self, request: Request) -> Response:
        parts = RelatedParts(request.headers.get("content-type", ""), request.chunks())
        settings = _json_object(await parts.metadata())
        content_type = await parts.content_type()
        settings.setdefault("contentType", content_type or "application/octet-stream")
        return await self._store(
            request, _required_name(request, settings), settings, parts.media()
        )

    async def _store(
        self,
        request: Request,
        name: str,
        settings: dict[str, Any],
        chunks: AsyncIterator[bytes],
    ) -> Response:
        settings |= hashes_of_header(request.headers.get("x-goog-hash", ""))
        stored = await take_whole(
            self._storage,
            self._storage.caller(request),
            (request.parameters["bucket"], name),
            settings,
            Preconditions.of_request(request),
            chunks,
        )
        return json_response(stored.to_wire(request.base_url))

    async def _start(self, request: Request) -> Response:
        caller = self._storage.caller(request)
        settings = await request.json()
        content_type = request.headers.get("x-upload-content-type")
        settings.setdefault("contentType", content_type or "application/octet-stream")
        bucket = request.parameters["bucket"]
        name = _required_name(request, settings)
        preconditions = Preconditions.of_request(request)
        upload = self._uploads.start(caller, bucket, name, settings, preconditions)
        return session_response(request, bucket, upload, 200)


async def take_whole(
    storage: Storage,
    caller: Caller,
    place: tuple[str, str],
    settings: dict[str, Any],
    preconditions: Preconditions,
    chunks: AsyncIterator[bytes],
) -> StoredObject:
    """
    An upload in one request; what may not be written is refused before its bytes are taken.

    Args:
        place: the bucket and the object's name.
    """
    bucket, name = place
    storage.objects.check_may_write(caller, bucket, name, preconditions)
    writer = storage.blobs.writer()
    try:
        async for chunk in chunks:
            writer.write(chunk)
        blob = writer.close()
        return storage.objects.finalize(caller, bucket, name, blob, settings, preconditions)
    except BaseException:  # whatever it was, nobody will go on with these bytes
        writer.abandon()
        raise


def session_response(request: Request, bucket: str, upload: str, status: int) -> Response:
    """Where a resumable upload goes on: an address that is all that a writer needs."""
    path = _PATH.format(bucket=bucket)
    location = f"{request.base_url}{path}?uploadType=resumable&upload_id={upload}"
    return Response(status, headers={"location": location, "x-guploader-uploadid": upload})


def _required_name(request: Request, settings: dict[str, Any]) -> str:
    name = settings.get("name") or request.query.get("name")
    if not name:
        raise InvalidRequest("Required object name")
    return str(name)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the metadata part is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidRequest("the metadata part is not a JSON object")
    return value


def hashes_of_header(header: str) -> dict[str, str]:
    """`X-Goog-Hash: crc32c=n03x6A==,md5=Ojk9c3dhfxgoKVVHYwFbHQ==` as the fields of a resource."""
    found = dict(re.findall(r"(crc32c|md5)=([\w+/=]+)", header))
    return {("md5Hash" if name == "md5" else name): value for name, value in found.items()}
