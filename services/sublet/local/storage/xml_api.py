"""
The XML API of Cloud Storage, as far as clients of the JSON API use it: signed URLs, reading,
writing and deleting an object, and multipart uploads.

Source: https://cloud.google.com/storage/docs/xml-api/reference-methods
"""

import base64
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree as ET

from sublet.errors import InvalidRequest, SubletError, Unimplemented
from sublet.local.iam.tokens import Caller
from sublet.local.storage.downloads import media, media_headers
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.refused_api import check_has_no_key
from sublet.local.storage.service import Storage
from sublet.local.storage.stored_object import StoredObject
from sublet.local.storage.upload_api import hashes_of_header, session_response, take_whole
from sublet.local.storage.xml_uploads import Part, hex_of
from sublet.local.web import HttpError, Request, Response, Router

_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"
_PATH: Final = "/{bucket}/{object...}"
_FIELDS: Final = {
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "content-type": "contentType",
    "x-goog-custom-time": "customTime",
    "x-goog-storage-class": "storageClass",
}
_META: Final = "x-goog-meta-"
_CODES: Final = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "OperationAborted",
    412: "PreconditionFailed",
    416: "InvalidRange",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}
_NOT_OFFERED: Final = ("acl", "tagging", "retention", "legal-hold", "compose", "encryption")


class XmlRouter(Router):
    """Says errors as the XML API does; `xml_code` of an error's class goes before the usual one."""

    def _error_response(self, error: SubletError) -> Response:
        status = error.http_status if isinstance(error, HttpError) else error.status
        headers = error.headers if isinstance(error, HttpError) else {}
        if status in (304, 308):
            return Response(status, headers=headers)
        code = getattr(error, "xml_code", None) or _CODES.get(status, "InternalError")
        body = _document("Error", {"Code": code, "Message": str(error), "Details": str(error)})
        return Response(status, body, {**_XML, **headers})


def add_xml_api(router: Router, storage: Storage) -> None:
    api = _XmlApi(storage)
    router.add("GET", _PATH, api.get)
    router.add("PUT", _PATH, api.put)
    router.add("POST", _PATH, api.post)
    router.add("DELETE", _PATH, api.delete)


class _XmlApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._uploads = storage.xml_uploads

    async def get(self, request: Request) -> Response:
        caller, place = self._opened(request)
        if "uploadId" in request.query:
            raise Unimplemented("The local cloud does not list the parts of an upload.")
        found = self._storage.objects.get(
            caller, *place, _generation(request), Preconditions.of_xml(request.headers)
        )
        if request.method == "HEAD":
            length = {"content-length": str(found.size)}
            return Response(200, headers=media_headers(found) | _xml_headers(found) | length)
        response = media(found, self._storage.objects.path_of(found), request.headers)
        response.headers |= _xml_headers(found) | _overrides(request)
        return response

    async def put(self, request: Request) -> Response:
        caller, place = self._opened(request)
        if "x-goog-copy-source" in request.headers:
            raise Unimplemented("The local cloud copies by the JSON API alone: use rewrite.")
        if "uploadId" in request.query:
            return await self._put_part(request, caller, place)
        stored = await take_whole(
            self._storage,
            caller,
            place,
            _settings(request.headers) | _hashes(request.headers),
            Preconditions.of_xml(request.headers),
            request.chunks(),
        )
        headers = media_headers(stored) | _xml_headers(stored)
        kept = {k: v for k, v in headers.items() if k.startswith("x-goog-") or k == "etag"}
        return Response(200, headers=kept)

    async def post(self, request: Request) -> Response:
        caller, place = self._opened(request)
        if request.headers.get("x-goog-resumable") == "start":
            upload = self._storage.uploads.start(
                caller, *place, _settings(request.headers), Preconditions.of_xml(request.headers)
            )
            return session_response(request, place[0], upload, 201)
        if "uploads" in request.query:
            return self._start(request, caller, place)
        if unfinished := request.query.get("uploadId"):
            return await self._complete(request, caller, place, unfinished)
        raise InvalidRequest("expected ?uploads, ?uploadId=ID or the header x-goog-resumable")

    async def delete(self, request: Request) -> Response:
        caller, place = self._opened(request)
        if upload := request.query.get("uploadId"):
            self._uploads.abort(caller, place, upload)
        else:
            self._storage.objects.delete(
                caller, *place, _generation(request), Preconditions.of_xml(request.headers)
            )
        return Response(204)

    def _opened(self, request: Request) -> tuple[Caller, tuple[str, str]]:
        """Who asks, and for which bucket and object."""
        caller = self._storage.signed_urls.signer(request) or self._storage.caller(request)
        check_has_no_key(request)
        for name in _NOT_OFFERED:
            if name in request.query:
                raise Unimplemented(f"The local cloud does not offer ?{name}.")
        if not request.parameters["object"]:
            raise Unimplemented("Buckets are asked about by the JSON API: /storage/v1/b/BUCKET")
        return caller, (request.parameters["bucket"], request.parameters["object"])

    def _start(self, request: Request, caller: Caller, place: tuple[str, str]) -> Response:
        preconditions = Preconditions.of_xml(request.headers)
        settings = _settings(request.headers)
        upload = self._uploads.start(caller, *place, settings, preconditions)
        bucket, name = place
        fields = {"Bucket": bucket, "Key": name, "UploadId": upload}
        return Response(200, _document("InitiateMultipartUploadResult", fields), dict(_XML))

    async def _put_part(self, request: Request, caller: Caller, place: tuple[str, str]) -> Response:
        number = request.query.get("partNumber", "")
        if not number.isdigit():
            raise InvalidRequest(f"got partNumber {number!r}; expected digits")
        part = await self._uploads.put_part(
            caller,
            place,
            request.query["uploadId"],
            int(number),
            _hashes(request.headers),
            request.chunks(),
        )
        hashes = f"crc32c={part.crc32c},md5={part.md5}"
        return Response(200, headers={"etag": f'"{hex_of(part.md5)}"', "x-goog-hash": hashes})

    async def _complete(
        self, request: Request, caller: Caller, place: tuple[str, str], upload: str
    ) -> Response:
        parts = _listed_parts(await request.body())
        stored = await self._uploads.complete(caller, place, upload, parts)
        fields = {
            "Location": f"{request.base_url}{request.raw_path}",
            "Bucket": stored.bucket,
            "Key": stored.name,
            "ETag": f'"{stored.etag}"',
        }
        headers = {"x-goog-generation": str(stored.generation), **_XML}
        return Response(200, _document("CompleteMultipartUploadResult", fields), headers)


_XML: Final[Mapping[str, str]] = {"content-type": "application/xml; charset=UTF-8"}


def _settings(headers: Mapping[str, str]) -> dict[str, Any]:
    """The metadata that a request's headers give a new object."""
    settings: dict[str, Any] = {
        field: headers[header] for header, field in _FIELDS.items() if header in headers
    }
    custom = {k.removeprefix(_META): v for k, v in headers.items() if k.startswith(_META)}
    return settings | ({"metadata": custom} if custom else {})


def _hashes(headers: Mapping[str, str]) -> dict[str, str]:
    hashes = hashes_of_header(headers.get("x-goog-hash", ""))
    if md5 := headers.get("content-md5"):
        hashes.setdefault("md5Hash", md5)
    return hashes


def _xml_headers(found: StoredObject) -> dict[str, str]:
    """The XML API's ETag is the MD5, where there is one; custom metadata comes as headers."""
    headers = {"etag": f'"{base64.b64decode(found.md5).hex()}"'} if found.md5 else {}
    for key, value in found.settings.get("metadata", {}).items():
        if key.isascii() and value.isascii() and (key + value).isprintable():
            headers[f"{_META}{key}"] = value
    return headers


def _overrides(request: Request) -> dict[str, str]:
    """What a reader wants the answer to be called, which a signed URL may fix."""
    named = {
        "content-type": request.query.get("response-content-type"),
        "content-disposition": request.query.get("response-content-disposition"),
    }
    return {k: v for k, v in named.items() if v and v.isascii() and v.isprintable()}


def _generation(request: Request) -> int | None:
    text = request.query.get("generation")
    if text is not None and not text.isdigit():
        raise InvalidRequest(f"got generation {text!r}; expected digits")
    return int(text) if text else None


def _listed_parts(body: bytes) -> list[Part]:
    try:
        root = ET.fromstring(body)  # noqa: S314  bounded, and expat refuses to amplify
        parts = [element for element in root.iter() if _local_name(element) == "Part"]
        return [_part({_local_name(child): child.text or "" for child in part}) for part in parts]
    except (ET.ParseError, KeyError, ValueError) as error:
        raise InvalidRequest(
            f"the body is not a CompleteMultipartUpload with parts of number and ETag: {error!r}"
        ) from None


def _part(fields: Mapping[str, str]) -> Part:
    return Part(number=int(fields["PartNumber"]), etag=fields["ETag"].strip().strip('"'))


def _local_name(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _document(name: str, fields: Mapping[str, str]) -> bytes:
    attributes = {} if name == "Error" else {"xmlns": _NAMESPACE}
    root = ET.Element(name, attributes)
    for field, text in fields.items():
        ET.SubElement(root, field).text = text
    return bytes(ET.tostring(root, encoding="UTF-8", xml_declaration=True))
