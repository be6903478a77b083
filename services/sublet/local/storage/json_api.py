"""
The JSON API of Cloud Storage: buckets, policies, notification configs and objects, as paths.

Source: https://cloud.google.com/storage/docs/json_api/v1
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sublet.errors import InvalidRequest, SubletError
from sublet.local.iam.policies import policy_from_wire, policy_to_wire
from sublet.local.iam.tokens import AccessTokens, Caller
from sublet.local.projects import Projects
from sublet.local.storage.blobs import READ_BYTES
from sublet.local.storage.buckets import Buckets
from sublet.local.storage.notifications import Notifications
from sublet.local.storage.objects import Objects, StoredObject
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.ranges import parse_range
from sublet.local.storage.upload_api import UploadApi
from sublet.local.storage.uploads import Uploads
from sublet.local.web import Request, Response, Router, json_response

_REASONS: Final = {
    "ABORTED": "conflict",
    "ALREADY_EXISTS": "conflict",
    "FAILED_PRECONDITION": "conditionNotMet",
    "INVALID_ARGUMENT": "invalid",
    "NOT_FOUND": "notFound",
    "PERMISSION_DENIED": "forbidden",
    "UNAUTHENTICATED": "required",
}


def storage_error(status: int, error: SubletError) -> object:
    """The older form of error, which Cloud Storage keeps."""
    reason = _REASONS.get(error.reason, "invalid")
    details = {"message": str(error), "domain": "global", "reason": reason}
    return {"error": {"code": status, "message": str(error), "errors": [details]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """The parts of Cloud Storage behind its API."""

    tokens: AccessTokens
    projects: Projects
    buckets: Buckets
    notifications: Notifications
    objects: Objects
    uploads: Uploads

    def caller(self, request: Request) -> Caller:
        return self.tokens.resolve(request.authorization)


def storage_app(storage: Storage) -> Router:
    router = Router(storage_error)
    _BucketApi(storage).add_to(router)
    _NotificationApi(storage).add_to(router)
    _ObjectApi(storage).add_to(router)
    UploadApi(storage.tokens, storage.objects, storage.uploads).add_to(router)
    return router


class _BucketApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._buckets = storage.buckets

    def add_to(self, router: Router) -> None:
        router.add("GET", "/storage/v1/b", self.list_buckets)
        router.add("POST", "/storage/v1/b", self.create)
        router.add("GET", "/storage/v1/b/{bucket}", self.get)
        router.add("PATCH", "/storage/v1/b/{bucket}", self.patch)
        router.add("PUT", "/storage/v1/b/{bucket}", self.patch)
        router.add("DELETE", "/storage/v1/b/{bucket}", self.delete)
        router.add("GET", "/storage/v1/b/{bucket}/iam", self.get_policy)
        router.add("PUT", "/storage/v1/b/{bucket}/iam", self.set_policy)
        router.add("GET", "/storage/v1/b/{bucket}/iam/testPermissions", self.test_permissions)
        router.add("GET", "/storage/v1/b/{bucket}/storageLayout", self.layout)
        router.add("GET", "/storage/v1/projects/{project}/serviceAccount", self.storage_agent)

    async def list_buckets(self, request: Request) -> Response:
        project, prefix = request.query.get("project", ""), request.query.get("prefix", "")
        found = self._buckets.list_of(self._storage.caller(request), project, prefix)
        items = [bucket.to_wire(request.base_url) for bucket in found]
        return json_response({"kind": "storage#buckets", "items": items})

    async def create(self, request: Request) -> Response:
        caller, project = self._storage.caller(request), request.query.get("project", "")
        bucket = self._buckets.create(caller, project, await request.json())
        return json_response(bucket.to_wire(request.base_url))

    async def get(self, request: Request) -> Response:
        bucket = self._buckets.get(self._storage.caller(request), request.parameters["bucket"])
        preconditions = Preconditions.from_query(request.query)
        preconditions.check_metageneration(bucket.metageneration, is_read=True)
        return json_response(bucket.to_wire(request.base_url))

    async def patch(self, request: Request) -> Response:
        bucket = self._buckets.patch(
            self._storage.caller(request),
            request.parameters["bucket"],
            await request.json(),
            Preconditions.from_query(request.query),
        )
        return json_response(bucket.to_wire(request.base_url))

    async def delete(self, request: Request) -> Response:
        preconditions = Preconditions.from_query(request.query)
        name = request.parameters["bucket"]
        self._buckets.delete(self._storage.caller(request), name, preconditions)
        return Response(204)

    async def get_policy(self, request: Request) -> Response:
        version = int(request.query.get("optionsRequestedPolicyVersion") or 1)
        name = request.parameters["bucket"]
        policy = self._buckets.policy(self._storage.caller(request), name, version)
        return self._policy(name, policy_to_wire(policy))

    async def set_policy(self, request: Request) -> Response:
        name, body = request.parameters["bucket"], await request.json()
        caller = self._storage.caller(request)
        policy = self._buckets.set_policy(caller, name, policy_from_wire(body))
        return self._policy(name, policy_to_wire(policy))

    async def test_permissions(self, request: Request) -> Response:
        wanted = [value for key, value in request.query_items if key == "permissions"]
        caller, name = self._storage.caller(request), request.parameters["bucket"]
        permitted = self._buckets.permitted(caller, name, wanted)
        return json_response(
            {"kind": "storage#testIamPermissionsResponse", "permissions": permitted}
        )

    async def layout(self, request: Request) -> Response:
        """Whether the bucket has folders of their own; `gcloud storage` asks before it copies."""
        caller, name = self._storage.caller(request), request.parameters["bucket"]
        bucket = self._buckets.get(caller, name, "storage.objects.list")
        return json_response(
            {
                "kind": "storage#storageLayout",
                "bucket": bucket.name,
                "location": bucket.settings["location"],
                "locationType": bucket.settings["locationType"],
                "hierarchicalNamespace": {"enabled": False},
            }
        )

    async def storage_agent(self, request: Request) -> Response:
        self._storage.caller(request)
        agent = self._storage.projects.storage_agent(request.parameters["project"])
        return json_response({"kind": "storage#serviceAccount", "email_address": agent})

    @staticmethod
    def _policy(bucket: str, policy: dict[str, Any]) -> Response:
        resource_id = f"projects/_/buckets/{bucket}"
        return json_response({"kind": "storage#policy", "resourceId": resource_id, **policy})


class _NotificationApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._notifications = storage.notifications

    def add_to(self, router: Router) -> None:
        path = "/storage/v1/b/{bucket}/notificationConfigs"
        router.add("GET", path, self.list_configs)
        router.add("POST", path, self.create)
        router.add("GET", f"{path}/{{id}}", self.get)
        router.add("DELETE", f"{path}/{{id}}", self.delete)

    async def list_configs(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        items = self._notifications.list_of(caller, bucket)
        return json_response({"kind": "storage#notifications", "items": items})

    async def create(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        return json_response(self._notifications.create(caller, bucket, await request.json()))

    async def get(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        return json_response(self._notifications.get(caller, bucket, request.parameters["id"]))

    async def delete(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        self._notifications.delete(caller, bucket, request.parameters["id"])
        return Response(204)


class _ObjectApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._objects = storage.objects

    def add_to(self, router: Router) -> None:
        path = "/storage/v1/b/{bucket}/o"
        router.add("GET", path, self.list_objects)
        router.add("GET", f"{path}/{{object}}", self.get)
        router.add("GET", f"/download{path}/{{object}}", self.download)
        router.add("PATCH", f"{path}/{{object}}", self.patch)
        router.add("DELETE", f"{path}/{{object}}", self.delete)

    async def list_objects(self, request: Request) -> Response:
        bucket = request.parameters["bucket"]
        listing = self._objects.list_of(self._storage.caller(request), bucket, request.query)
        body: dict[str, Any] = {"kind": "storage#objects"}
        if listing.items:
            body["items"] = [item.to_wire(request.base_url) for item in listing.items]
        if listing.prefixes:
            body["prefixes"] = listing.prefixes
        if listing.next_page_token:
            body["nextPageToken"] = listing.next_page_token
        return json_response(body)

    async def get(self, request: Request) -> Response:
        if request.query.get("alt") == "media":
            return await self.download(request)
        return json_response(self._find(request).to_wire(request.base_url))

    async def download(self, request: Request) -> Response:
        found = self._find(request)
        headers = _media_headers(found)
        wanted = parse_range(request.headers.get("range"), found.size)
        if wanted is None:
            headers["content-length"] = str(found.size)
            return Response(200, _file(self._objects.path_of(found), 0, found.size), headers)
        start, end = wanted
        headers["content-range"] = f"bytes {start}-{end - 1}/{found.size}"
        headers["content-length"] = str(end - start)
        return Response(206, _file(self._objects.path_of(found), start, end), headers)

    async def patch(self, request: Request) -> Response:
        changed = self._objects.patch(
            self._storage.caller(request),
            request.parameters["bucket"],
            request.parameters["object"],
            await request.json(),
            _generation(request),
            Preconditions.from_query(request.query),
        )
        return json_response(changed.to_wire(request.base_url))

    async def delete(self, request: Request) -> Response:
        self._objects.delete(
            self._storage.caller(request),
            request.parameters["bucket"],
            request.parameters["object"],
            _generation(request),
            Preconditions.from_query(request.query),
        )
        return Response(204)

    def _find(self, request: Request) -> StoredObject:
        return self._objects.get(
            self._storage.caller(request),
            request.parameters["bucket"],
            request.parameters["object"],
            _generation(request),
            Preconditions.from_query(request.query),
        )


def _generation(request: Request) -> int | None:
    text = request.query.get("generation")
    if text is None:
        return None
    if not text.isdigit():
        raise InvalidRequest(f"got generation {text!r}; expected digits")
    return int(text)


def _media_headers(found: StoredObject) -> dict[str, str]:
    headers = {
        "accept-ranges": "bytes",
        "cache-control": found.settings.get("cacheControl", "private, max-age=0"),
        "content-type": found.settings.get("contentType", "application/octet-stream"),
        "etag": f'"{found.etag}"',
        "last-modified": f"{found.updated_at:%a, %d %b %Y %H:%M:%S} GMT",
        "x-goog-generation": str(found.generation),
        "x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}",
        "x-goog-metageneration": str(found.metageneration),
        "x-goog-storage-class": "STANDARD",
        "x-goog-stored-content-encoding": found.settings.get("contentEncoding", "identity"),
        "x-goog-stored-content-length": str(found.size),
    }
    if encoding := found.settings.get("contentEncoding"):
        headers["content-encoding"] = encoding
    return headers


def _file(path: Path, start: int, end: int) -> Iterator[bytes]:
    """
    A span of a blob. It is opened now, so that an overwrite meanwhile does not end the reading.
    """
    file = path.open("rb")

    def pieces() -> Iterator[bytes]:
        with file:
            file.seek(start)
            left = end - start
            while left and (piece := file.read(min(READ_BYTES, left))):
                left -= len(piece)
                yield piece

    return pieces()
