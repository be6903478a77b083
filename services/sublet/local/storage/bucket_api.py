"""The JSON API's paths of buckets, their policies, and their notification configs."""

from typing import Any

from sublet.errors import InvalidRequest
from sublet.local.iam.policies import policy_from_wire, policy_to_wire
from sublet.local.storage.preconditions import Preconditions
from sublet.local.storage.service import Storage
from sublet.local.web import Request, Response, Router, json_response


class BucketApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._buckets = storage.buckets

    def add_to(self, router: Router) -> None:
        router.add("GET", "/storage/v1/b", self.list_buckets)
        router.add("POST", "/storage/v1/b", self.create)
        router.add("GET", "/storage/v1/b/{bucket}", self.get)
        router.add("PATCH", "/storage/v1/b/{bucket}", self.patch)
        router.add("PUT", "/storage/v1/b/{bucket}", self.update)
        router.add("DELETE", "/storage/v1/b/{bucket}", self.delete)
        router.add("POST", "/storage/v1/b/{bucket}/lockRetentionPolicy", self.lock_retention)
        router.add("GET", "/storage/v1/b/{bucket}/iam", self.get_policy)
        router.add("PUT", "/storage/v1/b/{bucket}/iam", self.set_policy)
        router.add("GET", "/storage/v1/b/{bucket}/iam/testPermissions", self.test_permissions)
        router.add("GET", "/storage/v1/b/{bucket}/storageLayout", self.layout)
        router.add("GET", "/storage/v1/projects/{project}/serviceAccount", self.storage_agent)

    async def list_buckets(self, request: Request) -> Response:
        project, prefix = request.query.get("project", ""), request.query.get("prefix", "")
        found = self._buckets.list_of(self._storage.caller(request), project, prefix)
        body: dict[str, Any] = {"kind": "storage#buckets"}
        found = [b for b in found if b.name > request.query.get("pageToken", "")]
        size = _page_size(request)
        if len(found) > size:
            body["nextPageToken"] = found[size - 1].name
        body["items"] = [bucket.to_wire(request.base_url) for bucket in found[:size]]
        return json_response(body)

    async def create(self, request: Request) -> Response:
        bucket = self._buckets.create(
            self._storage.caller(request),
            request.query.get("project", ""),
            await request.json(),
            object_retention=request.flag("enableObjectRetention"),
        )
        return json_response(bucket.to_wire(request.base_url))

    async def get(self, request: Request) -> Response:
        bucket = self._buckets.get(
            self._storage.caller(request),
            request.parameters["bucket"],
            preconditions=Preconditions.of_request(request),
        )
        return json_response(bucket.to_wire(request.base_url))

    async def patch(self, request: Request) -> Response:
        bucket = self._buckets.patch(
            self._storage.caller(request),
            request.parameters["bucket"],
            await request.json(),
            Preconditions.of_request(request),
        )
        return json_response(bucket.to_wire(request.base_url))

    async def update(self, request: Request) -> Response:
        bucket = self._buckets.update(
            self._storage.caller(request),
            request.parameters["bucket"],
            await request.json(),
            Preconditions.of_request(request),
        )
        return json_response(bucket.to_wire(request.base_url))

    async def delete(self, request: Request) -> Response:
        preconditions = Preconditions.of_request(request)
        caller, name = self._storage.caller(request), request.parameters["bucket"]
        self._buckets.get(caller, name, "storage.buckets.delete")
        self._storage.managed_folders.check_none(name)
        self._storage.objects.delete_bucket(caller, name, preconditions)
        return Response(204)

    async def lock_retention(self, request: Request) -> Response:
        caller, name = self._storage.caller(request), request.parameters["bucket"]
        preconditions = Preconditions.of_request(request)
        bucket = self._buckets.lock_retention(caller, name, preconditions)
        return json_response(bucket.to_wire(request.base_url))

    async def get_policy(self, request: Request) -> Response:
        version = request.query.get("optionsRequestedPolicyVersion") or "1"
        if version not in ("1", "2", "3"):
            raise InvalidRequest(f"got optionsRequestedPolicyVersion {version!r}; expected 1 or 3")
        name = request.parameters["bucket"]
        policy = self._buckets.policy(self._storage.caller(request), name, int(version))
        return _policy(name, policy_to_wire(policy))

    async def set_policy(self, request: Request) -> Response:
        name, body = request.parameters["bucket"], await request.json()
        if str(body.get("version") or 1) not in ("1", "2", "3"):
            raise InvalidRequest(f"got policy version {body['version']!r}; expected 1 or 3")
        caller = self._storage.caller(request)
        policy = self._buckets.set_policy(caller, name, policy_from_wire(body))
        return _policy(name, policy_to_wire(policy))

    async def test_permissions(self, request: Request) -> Response:
        caller, name = self._storage.caller(request), request.parameters["bucket"]
        permitted = self._buckets.permitted(caller, name, asked_permissions(request))
        return permissions_response(permitted)

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


class NotificationApi:
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


def asked_permissions(request: Request) -> list[str]:
    return [value for key, value in request.query_items if key == "permissions"]


def permissions_response(permitted: list[str]) -> Response:
    return json_response({"kind": "storage#testIamPermissionsResponse", "permissions": permitted})


def _policy(bucket: str, policy: dict[str, Any]) -> Response:
    resource_id = f"projects/_/buckets/{bucket}"
    return json_response({"kind": "storage#policy", "resourceId": resource_id, **policy})


def _page_size(request: Request) -> int:
    text = request.query.get("maxResults", "1000")
    if not text.isdigit():
        raise InvalidRequest(f"got maxResults {text!r}; expected a number")
    return min(int(text) or 1000, 1000)
