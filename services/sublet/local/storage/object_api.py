"""The JSON API's paths of objects: read, listed, changed, deleted, restored, copied, composed."""

from typing import Any

from sublet.errors import InvalidRequest
from sublet.local.storage.bucket_api import asked_permissions, permissions_response
from sublet.local.storage.copying import Source
from sublet.local.storage.downloads import media, media_headers
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.service import Storage
from sublet.local.storage.stored_object import StoredObject
from sublet.local.web import Request, Response, Router, json_response


class ObjectApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._objects = storage.objects

    def add_to(self, router: Router) -> None:
        path = "/storage/v1/b/{bucket}/o"
        router.add("GET", path, self.list_objects)
        router.add("GET", f"{path}/{{object}}", self.get)
        router.add("GET", f"/download{path}/{{object}}", self.download)
        router.add("PATCH", f"{path}/{{object}}", self.patch)
        router.add("PUT", f"{path}/{{object}}", self.update)
        router.add("DELETE", f"{path}/{{object}}", self.delete)
        router.add("POST", f"{path}/{{object}}/restore", self.restore)
        router.add("GET", f"{path}/{{object}}/iam/testPermissions", self.test_permissions)

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
        if request.flag("softDeleted"):
            caller, (bucket, name) = self._storage.caller(request), object_of(request)
            found = self._objects.get_soft_deleted(caller, bucket, name, generation_of(request))
        else:
            found = self._find(request)
        return _resource(found, request)

    async def download(self, request: Request) -> Response:
        found = self._find(request)
        if request.method == "HEAD":
            length = {"content-length": str(found.size)}
            return Response(200, headers=media_headers(found) | length)
        return media(found, self._objects.path_of(found), request.headers)

    async def patch(self, request: Request) -> Response:
        return await self._change(request, replaces=False)

    async def update(self, request: Request) -> Response:
        return await self._change(request, replaces=True)

    async def delete(self, request: Request) -> Response:
        self._objects.delete(
            self._storage.caller(request),
            *object_of(request),
            generation_of(request),
            Preconditions.of_request(request),
        )
        return Response(204)

    async def restore(self, request: Request) -> Response:
        restored = self._objects.restore(
            self._storage.caller(request),
            *object_of(request),
            generation_of(request),
            Preconditions.of_request(request),
        )
        return _resource(restored, request)

    async def test_permissions(self, request: Request) -> Response:
        bucket, name = object_of(request)
        caller, asked = self._storage.caller(request), asked_permissions(request)
        return permissions_response(self._storage.buckets.permitted(caller, bucket, asked, name))

    async def _change(self, request: Request, *, replaces: bool) -> Response:
        changed = self._objects.patch(
            self._storage.caller(request),
            *object_of(request),
            await request.json(),
            generation=generation_of(request),
            preconditions=Preconditions.of_request(request),
            replaces=replaces,
            overrides_retention=request.flag("overrideUnlockedRetention"),
        )
        return _resource(changed, request)

    def _find(self, request: Request) -> StoredObject:
        return self._objects.get(
            self._storage.caller(request),
            *object_of(request),
            generation_of(request),
            Preconditions.of_request(request),
        )


class CopyApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._copies = storage.copies

    def add_to(self, router: Router) -> None:
        path = "/storage/v1/b/{bucket}/o/{object}"
        to = "b/{to_bucket}/o/{to_object}"
        router.add("POST", f"{path}/compose", self.compose)
        router.add("POST", f"{path}/rewriteTo/{to}", self.rewrite)
        router.add("POST", f"{path}/copyTo/{to}", self.copy)
        router.add("POST", f"{path}/moveTo/o/{{to_object}}", self.move)

    async def compose(self, request: Request) -> Response:
        body = await request.json()
        bucket, name = object_of(request)
        parts = body.get("sourceObjects") or []
        if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
            raise InvalidRequest("sourceObjects must be a list of objects with a name")
        composed = await self._copies.compose(
            self._storage.caller(request),
            [_part(bucket, part) for part in parts],
            bucket,
            name,
            body.get("destination") or {},
            Preconditions.of_request(request),
            deletes_sources=bool(body.get("deleteSourceObjects")),
        )
        return _resource(composed, request)

    async def rewrite(self, request: Request) -> Response:
        """Done at once, so that a token, which none was ever given, has nothing to go on with."""
        made = await self._copied(request)
        return json_response(
            {
                "kind": "storage#rewriteResponse",
                "totalBytesRewritten": str(made.size),
                "objectSize": str(made.size),
                "done": True,
                "resource": made.to_wire(request.base_url),
            }
        )

    async def copy(self, request: Request) -> Response:
        return _resource(await self._copied(request), request)

    async def move(self, request: Request) -> Response:
        moved = self._copies.move(
            self._storage.caller(request),
            _source(request),
            request.parameters["to_object"],
            Preconditions.of_request(request),
        )
        return _resource(moved, request)

    async def _copied(self, request: Request) -> StoredObject:
        return self._copies.copy(
            self._storage.caller(request),
            _source(request),
            request.parameters["to_bucket"],
            request.parameters["to_object"],
            await request.json(),
            Preconditions.of_request(request),
        )


def object_of(request: Request) -> tuple[str, str]:
    return request.parameters["bucket"], request.parameters["object"]


def generation_of(request: Request, parameter: str = "generation") -> int | None:
    return _generation(request.query.get(parameter), parameter)


def _source(request: Request) -> Source:
    bucket, name = object_of(request)
    return Source(
        bucket=bucket,
        name=name,
        generation=generation_of(request, "sourceGeneration"),
        preconditions=Preconditions.from_query(request.query, of="Source"),
    )


def _part(bucket: str, part: dict[str, Any]) -> Source:
    """One of the objects to compose; in a body, numbers are numbers or strings of digits."""
    conditions = part.get("objectPreconditions") or {}
    return Source(
        bucket=bucket,
        name=str(part.get("name") or ""),
        generation=_generation(part.get("generation"), "generation"),
        preconditions=Preconditions.from_query({k: str(v) for k, v in conditions.items()}),
    )


def _generation(value: object, parameter: str) -> int | None:
    if value is None:
        return None
    if not str(value).isdigit():
        raise InvalidRequest(f"got {parameter} {value!r}; expected digits")
    return int(str(value))


def _resource(found: StoredObject, request: Request) -> Response:
    return json_response(found.to_wire(request.base_url), headers={"etag": found.etag})
