"""
The JSON API's paths of managed folders and their policies.

Source: https://cloud.google.com/storage/docs/json_api/v1/managedFolder
"""

from sublet.local.iam.policies import policy_from_wire, policy_to_wire
from sublet.local.iam.tokens import Caller
from sublet.local.storage.service import Storage
from sublet.local.web import Request, Response, Router, json_response


class ManagedFolderApi:
    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._folders = storage.managed_folders

    def add_to(self, router: Router) -> None:
        path = "/storage/v1/b/{bucket}/managedFolders"
        router.add("GET", path, self.list_folders)
        router.add("POST", path, self.create)
        router.add("GET", f"{path}/{{folder}}", self.get)
        router.add("DELETE", f"{path}/{{folder}}", self.delete)
        router.add("GET", f"{path}/{{folder}}/iam", self.get_policy)
        router.add("PUT", f"{path}/{{folder}}/iam", self.set_policy)

    async def list_folders(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        found = self._folders.list_of(caller, bucket, request.query.get("prefix", ""))
        items = [folder.to_wire() for folder in found]
        return json_response({"kind": "storage#managedFolders", "items": items})

    async def create(self, request: Request) -> Response:
        caller, bucket = self._storage.caller(request), request.parameters["bucket"]
        body = await request.json()
        return json_response(
            self._folders.create(caller, bucket, str(body.get("name", ""))).to_wire()
        )

    async def get(self, request: Request) -> Response:
        return json_response(self._folders.get(*self._named(request)).to_wire())

    async def delete(self, request: Request) -> Response:
        even_if_full = request.flag("allowNonEmpty")
        self._folders.delete(*self._named(request), even_if_full=even_if_full)
        return Response(204)

    async def get_policy(self, request: Request) -> Response:
        policy = self._folders.policy(*self._named(request))
        return json_response({"kind": "storage#policy", **policy_to_wire(policy)})

    async def set_policy(self, request: Request) -> Response:
        policy = policy_from_wire(await request.json())
        kept = self._folders.set_policy(*self._named(request), policy)
        return json_response({"kind": "storage#policy", **policy_to_wire(kept)})

    def _named(self, request: Request) -> tuple[Caller, str, str]:
        names = request.parameters
        return self._storage.caller(request), names["bucket"], names["folder"]
