"""
The decision: may this caller do this, here, now? Bindings of the resource's policy and of its
project's, conditions, the token's boundary. Everything that is not granted is denied.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sublet.buckets import Binding, Policy
from sublet.conditions import Request, Truth, evaluate
from sublet.errors import NotFound
from sublet.local.iam.custom_roles import Roles
from sublet.local.iam.policies import Policies
from sublet.local.iam.tokens import Caller
from sublet.local.iam.trace import NearMiss, Why
from sublet.ports import Clock

_CONVENIENCE = {
    "projectowner:": "roles/owner",
    "projecteditor:": "roles/editor",
    "projectviewer:": "roles/viewer",
}
"""Members that mean: whoever holds that basic role on that project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    What a permission is asked for.

    `policies` are the resources whose policies count, from the thing itself up to its project;
    `name`, `type` and `service` are what conditions see; `bucket` is what boundaries see.
    """

    policies: tuple[str, ...]
    name: str
    type: str = ""
    service: str = ""
    bucket: str = ""
    api_attributes: dict[str, str] = field(default_factory=dict)


class Decisions:
    def __init__(self, policies: Policies, roles: Roles, clock: Clock) -> None:
        self._policies = policies
        self._roles = roles
        self._clock = clock

    def is_allowed(self, caller: Caller, permission: str, target: Target) -> bool:
        if caller.is_owner:
            return True
        request = self._request(target)
        granted = any(
            self._miss(binding, caller, permission, request) is None
            for resource in target.policies
            for binding in self._policies.in_force(resource).bindings
        )
        return granted and self._within_boundary(caller, permission, target, request)

    def near_misses(self, caller: Caller, permission: str, target: Target) -> Iterator[NearMiss]:
        """What came near to allowing something that is not allowed."""
        request = self._request(target)
        for resource in target.policies:
            in_force = self._policies.in_force(resource)
            for binding in in_force.bindings:
                miss = self._miss(binding, caller, permission, request)
                if miss is None:
                    yield _near(resource, binding, Why.BOUNDARY)
                elif miss is not Why.NO_BINDING:
                    yield _near(resource, binding, miss)
            yield from self._to_come(resource, in_force, caller, permission, request)

    def _to_come(
        self, resource: str, in_force: Policy, caller: Caller, permission: str, request: Request
    ) -> Iterator[NearMiss]:
        """The bindings that were written and do not decide yet."""
        latest = self._policies.get(resource)
        for binding in () if latest == in_force else latest.bindings:
            if self._miss(binding, caller, permission, request) is None:
                yield NearMiss(
                    resource=resource,
                    role=binding.role,
                    members=binding.members,
                    why=Why.NOT_YET_IN_FORCE,
                    in_force_at=self._policies.settles_at(resource),
                )

    def _miss(
        self, binding: Binding, caller: Caller, permission: str, request: Request
    ) -> Why | None:
        """What keeps a binding from granting; None if it grants, NO_BINDING if it is not near."""
        names_caller = any(self._is(caller, member.casefold()) for member in binding.members)
        granted = self._granted_by(binding.role)
        if not names_caller:
            return Why.WRONG_MEMBER if permission in granted else Why.NO_BINDING
        if permission not in granted:
            return Why.WRONG_ROLE if granted else Why.ROLE_OFF
        if binding.condition is None:
            return None
        match evaluate(binding.condition.expression, request):
            case Truth.TRUE:
                return None
            case Truth.FALSE:
                return Why.CONDITION_FALSE
            case _:
                return Why.CONDITION_UNREADABLE

    def _granted_by(self, role: str) -> frozenset[str]:
        try:
            return self._roles.permissions_of(role)
        except NotFound:
            return frozenset()

    def _is(self, caller: Caller, member: str) -> bool:
        """Whether a member of a policy, case-folded, means the caller."""
        if member in caller.members:
            return True
        for kind, role in _CONVENIENCE.items():
            if member.startswith(kind):
                project = f"projects/{member.removeprefix(kind)}"
                return any(
                    binding.role == role
                    and not caller.members.isdisjoint(m.casefold() for m in binding.members)
                    for binding in self._policies.in_force(project).bindings
                )
        return False

    def _request(self, target: Target) -> Request:
        return Request(
            time=self._clock.now(),
            resource_name=target.name,
            resource_type=target.type,
            resource_service=target.service,
            api_attributes=target.api_attributes,
        )

    @staticmethod
    def _within_boundary(caller: Caller, permission: str, target: Target, request: Request) -> bool:
        return caller.boundary is None or any(
            rule.allows(permission, target.bucket, request) for rule in caller.boundary.rules
        )


def _near(resource: str, binding: Binding, why: Why) -> NearMiss:
    return NearMiss(
        resource=resource,
        role=binding.role,
        members=binding.members,
        why=why,
        condition=binding.condition.expression if binding.condition else "",
    )
