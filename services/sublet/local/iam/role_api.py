"""
Roles over REST: a project's own, which can be changed, and the predefined ones.

Source: https://cloud.google.com/iam/docs/reference/rest/v1/projects.roles
"""

import base64
from dataclasses import replace
from typing import Any, Final

from sublet.errors import Conflict, FailedPrecondition, InvalidRequest
from sublet.local.iam.callers import Callers, object_of
from sublet.local.iam.custom_roles import Role
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.roles import PREDEFINED
from sublet.local.web import Request, Response, Router, json_response

_ROLES: Final = "/v1/projects/{project}/roles"
_FIELDS: Final = {
    "title": "title",
    "description": "description",
    "stage": "stage",
    "includedPermissions": "permissions",
    "included_permissions": "permissions",
}


class RoleApi:
    def __init__(self, iam: Iam) -> None:
        self._roles = iam.roles
        self._callers = Callers(iam)

    def add_to(self, router: Router) -> None:
        router.add("POST", _ROLES, self.create)
        router.add("GET", _ROLES, self.list_roles)
        router.add("POST", f"{_ROLES}/{{role}}:undelete", self.undelete)
        router.add("GET", f"{_ROLES}/{{role}}", self.get)
        router.add("PATCH", f"{_ROLES}/{{role}}", self.patch)
        router.add("DELETE", f"{_ROLES}/{{role}}", self.delete)
        router.add("GET", "/v1/roles", self.list_predefined)
        router.add("GET", "/v1/roles/{role}", self.get_predefined)

    async def create(self, request: Request) -> Response:
        self._allow(request, "iam.roles.create")
        body = await request.json()
        project = request.parameters["project"]
        role = Role(name=f"projects/{project}/roles/{body.get('roleId', '')}", permissions=())
        return _answer(self._roles.create(_with(role, object_of(body, "role"))))

    async def list_roles(self, request: Request) -> Response:
        self._allow(request, "iam.roles.list")
        roles = self._roles.list_of(
            request.parameters["project"], show_deleted=request.flag("showDeleted")
        )
        is_full = request.query.get("view") == "FULL"
        return json_response({"roles": [_to_wire(role, full=is_full) for role in roles]})

    async def get(self, request: Request) -> Response:
        self._allow(request, "iam.roles.get")
        return _answer(self._roles.get(_name(request)))

    async def patch(self, request: Request) -> Response:
        self._allow(request, "iam.roles.update")
        body = await request.json()
        mask = request.query.get("updateMask") or ",".join(_FIELDS.keys() & body.keys())
        if unknown := set(filter(None, mask.split(","))) - _FIELDS.keys():
            raise InvalidRequest(
                f"got updateMask with {sorted(unknown)}; expected of {', '.join(_FIELDS)}"
            )
        wanted = {name: body.get(name) for name in mask.split(",") if name in _FIELDS}
        current = self._roles.get(_name(request))
        return _answer(self._change(_with(current, wanted), body.get("etag")))

    async def delete(self, request: Request) -> Response:
        self._allow(request, "iam.roles.delete")
        role = self._roles.get(_name(request))
        return _answer(self._change(replace(role, deleted=True), request.query.get("etag")))

    async def undelete(self, request: Request) -> Response:
        self._allow(request, "iam.roles.undelete")
        role = self._roles.get(_name(request))
        if not role.deleted:
            raise InvalidRequest(f"role {role.name} is not deleted")
        etag = (await request.json()).get("etag")
        return _answer(self._change(replace(role, deleted=False), etag))

    async def list_predefined(self, request: Request) -> Response:
        del request
        roles = [self._roles.get(name) for name in sorted(PREDEFINED)]
        return json_response({"roles": [_to_wire(role, full=False) for role in roles]})

    async def get_predefined(self, request: Request) -> Response:
        """What a predefined role carries is no secret."""
        return _answer(self._roles.get(f"roles/{request.parameters['role']}"))

    def _change(self, role: Role, etag: object) -> Role:
        try:
            return self._roles.change(role, version=_version(str(etag)) if etag else None)
        except FailedPrecondition as stale:
            raise Conflict(str(stale)) from None

    def _allow(self, request: Request, permission: str) -> None:
        self._callers.on_project(request, request.parameters["project"], permission)


def _name(request: Request) -> str:
    return f"projects/{request.parameters['project']}/roles/{request.parameters['role']}"


def _with(role: Role, wire: dict[str, Any]) -> Role:
    """The role with what a body says of it; a field that is null is emptied."""
    changes: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if name not in wire:
            continue
        value = wire[name]
        if field == "permissions":
            if not isinstance(value or [], list):
                raise InvalidRequest(f"got {name} {value!r}; expected a list of permissions")
            changes[field] = tuple(sorted({str(permission) for permission in value or []}))
        else:
            changes[field] = str(value or ("GA" if field == "stage" else ""))
    return replace(role, **changes)


def _answer(role: Role) -> Response:
    return json_response(_to_wire(role, full=True))


def _to_wire(role: Role, *, full: bool) -> dict[str, Any]:
    wire: dict[str, Any] = {
        "name": role.name,
        "title": role.title,
        "description": role.description,
        "stage": role.stage,
        "etag": base64.b64encode(b"role" + role.version.to_bytes(4, "big")).decode(),
    }
    if role.deleted:
        wire["deleted"] = True
    if full:
        wire["includedPermissions"] = list(role.permissions)
    return wire


def _version(etag: str) -> int:
    try:
        return int.from_bytes(base64.b64decode(etag, validate=True).removeprefix(b"role"), "big")
    except ValueError:
        raise InvalidRequest(f"got etag {etag!r}; expected one that was read here") from None
