"""
What IAM's APIs have in common: who calls, what a path names, whether the one may do that to the
other, and the three methods that every policy has.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from sublet.errors import Conflict, FailedPrecondition, InvalidRequest, NotFound
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.policies import policy_from_wire, policy_to_wire
from sublet.local.iam.service_accounts import ServiceAccount, service_account_resource
from sublet.local.iam.tokens import Caller
from sublet.local.web import Request
from sublet.names import Email

IAM: Final = "iam.googleapis.com"
RESOURCE_MANAGER: Final = "cloudresourcemanager.googleapis.com"
_OPTION: Final = "options.requestedPolicyVersion"


class Callers:
    def __init__(self, iam: Iam) -> None:
        self.iam = iam

    def caller(self, request: Request) -> Caller:
        return self.iam.tokens.resolve(request.authorization)

    def account(
        self, request: Request, permission: str, caller: Caller | None = None
    ) -> ServiceAccount:
        """
        The account that a path names, if the caller may do that to it.

        Raises:
            AccessDenied: also for an account that is not there, unless the project says that the
                caller may know. NotFound: it may.
        """
        caller = caller or self.caller(request)
        email = Email(request.parameters["email"].casefold())
        try:
            account = self.iam.service_accounts.get(email)
        except NotFound:
            self.iam.authorize(caller, permission, target_of_missing(email))
            raise
        self.iam.authorize(caller, permission, target_of(account))
        return account

    def on_project(self, request: Request, project: str, permission: str) -> None:
        service = RESOURCE_MANAGER if permission.startswith("resourcemanager.") else IAM
        target = Target(
            policies=(f"projects/{project}",),
            name=f"projects/{project}",
            type="cloudresourcemanager.googleapis.com/Project",
            service=service,
        )
        self.iam.authorize(self.caller(request), permission, target)


def target_of(account: ServiceAccount) -> Target:
    return Target(
        policies=(account.resource, f"projects/{account.project}"),
        name=account.resource,
        type="iam.googleapis.com/ServiceAccount",
        service=IAM,
    )


def target_of_missing(email: Email) -> Target:
    """Nothing but the project that its name says can have a policy about it."""
    project = email.partition("@")[2].partition(".")[0]
    name = service_account_resource(email)
    return Target(policies=(f"projects/{project}",), name=name, service=IAM)


class PolicyMethods:
    """getIamPolicy, setIamPolicy and testIamPermissions of one resource, once they are allowed."""

    def __init__(self, iam: Iam) -> None:
        self._iam = iam

    def read(self, resource: str, requested_version: int) -> dict[str, Any]:
        return policy_to_wire(self._iam.policies.get(resource), requested_version)

    def write(self, resource: str, wire: object) -> dict[str, Any]:
        """
        Raises:
            InvalidRequest: the policy is malformed, or names a role that does not exist.
            Conflict: somebody else changed it since it was read.
        """
        if not isinstance(wire, dict):
            raise InvalidRequest('got no policy; expected {"policy": {"bindings": [...]}}')
        policy = policy_from_wire(wire)
        for binding in policy.bindings:
            self._check_role(binding.role)
        try:
            kept = self._iam.policies.set(resource, policy, wrote_version=policy.version)
        except FailedPrecondition as stale:
            # These APIs answer ABORTED to a stale etag, which clients take for "read it again".
            raise Conflict(f"There were concurrent policy changes: {stale}") from None
        return policy_to_wire(kept)

    def permitted(self, caller: Caller, asked: object, target: Target) -> dict[str, Any]:
        """Which of the permissions the caller has; asking is open to everybody."""
        if not isinstance(asked, list) or any("*" in str(permission) for permission in asked):
            raise InvalidRequest("permissions must be a list of names, without wildcards")
        allowed = self._allowed(caller, (str(permission) for permission in asked), target)
        return {"permissions": allowed} if allowed else {}

    def _allowed(self, caller: Caller, asked: Iterable[str], target: Target) -> list[str]:
        return [p for p in asked if self._iam.is_allowed(caller, p, target)]

    def _check_role(self, role: str) -> None:
        if "_withcond_" in role:
            return  # refused below, with what to do
        try:
            self._iam.permissions_of(role)
        except NotFound:
            raise InvalidRequest(f"Role {role} is not supported for this resource.") from None


def object_of(body: dict[str, Any], name: str) -> dict[str, Any]:
    """
    A field of a body that is an object; an empty one if it is left out.

    Raises:
        InvalidRequest: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise InvalidRequest(f"got {name} {value!r}; expected an object")
    return value or {}


def requested_version(request: Request, body: dict[str, Any] | None = None) -> int:
    """
    The policy version that a reader understands, of the query or of the body; 1 if none is said.

    Raises:
        InvalidRequest: a version that does not exist.
    """
    options = object_of(body or {}, "options")
    version = str(request.query.get(_OPTION) or options.get("requestedPolicyVersion") or 1)
    if not re.fullmatch("[013]", version):
        raise InvalidRequest(f"got requestedPolicyVersion {version!r}; expected 0, 1 or 3")
    return int(version)
