"""
The decision: may this caller do this, here, now? Bindings of the resource's policy and of its
project's, conditions, the token's boundary. Everything that is not allowed is denied, and the
denial names the permission.
"""

from dataclasses import dataclass, field
from typing import Final

from sublet.buckets import Binding
from sublet.conditions import Request, Truth, evaluate
from sublet.errors import AccessDenied, NotFound, Unauthenticated
from sublet.local.database import Database
from sublet.local.iam.policies import Policies
from sublet.local.iam.roles import PREDEFINED
from sublet.local.iam.service_accounts import ServiceAccounts
from sublet.local.iam.tokens import AccessTokens, Caller
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS custom_roles (
    name       TEXT NOT NULL,
    permission TEXT NOT NULL,
    PRIMARY KEY (name, permission)
) STRICT;
"""


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


class Iam:
    """The one place of the local cloud that says yes or no."""

    def __init__(
        self, database: Database, clock: Clock, *, anonymous_is_owner: bool = True
    ) -> None:
        self._database = database
        self._clock = clock
        self.policies = Policies(database)
        self.service_accounts = ServiceAccounts(database)
        self.tokens = AccessTokens(
            database, clock, self.service_accounts, anonymous_is_owner=anonymous_is_owner
        )
        database.create_tables(SCHEMA)

    def create_role(self, name: str, permissions: frozenset[str]) -> None:
        """Make or replace a custom role, `projects/P/roles/R`."""
        with self._database.transaction():
            self._database.execute("DELETE FROM custom_roles WHERE name = ?", name)
            self._database.execute_many(
                "INSERT INTO custom_roles VALUES (?, ?)", [(name, p) for p in sorted(permissions)]
            )

    def permissions_of(self, role: str) -> frozenset[str]:
        """
        Raises:
            NotFound: no such role, predefined or custom.
        """
        if role in PREDEFINED:
            return PREDEFINED[role]
        rows = self._database.rows("SELECT permission FROM custom_roles WHERE name = ?", role)
        if not rows:
            raise NotFound(f"Role {role} does not exist.")
        return frozenset(row["permission"] for row in rows)

    def is_allowed(self, caller: Caller, permission: str, target: Target) -> bool:
        if caller.is_owner:
            return True
        request = Request(
            time=self._clock.now(),
            resource_name=target.name,
            resource_type=target.type,
            resource_service=target.service,
            api_attributes=target.api_attributes,
        )
        granted = any(
            self._grants(binding, caller, permission, request)
            for resource in target.policies
            for binding in self.policies.get(resource).bindings
        )
        return granted and (
            caller.boundary is None
            or any(
                rule.allows(permission, target.bucket, request) for rule in caller.boundary.rules
            )
        )

    def authorize(self, caller: Caller, permission: str, target: Target) -> None:
        """
        Raises:
            Unauthenticated: nobody is calling, and nobody may not.
            AccessDenied: somebody is calling who may not; names the permission.
        """
        if self.is_allowed(caller, permission, target):
            return
        message = (
            f"{caller} does not have {permission} access to {target.name}. "
            f"Permission '{permission}' denied on resource (or it may not exist)."
        )
        if caller.email is None:
            raise Unauthenticated(message)
        raise AccessDenied(message)

    def _grants(self, binding: Binding, caller: Caller, permission: str, request: Request) -> bool:
        members = {member.casefold() for member in binding.members}
        if caller.members.isdisjoint(members) or not self._carries(binding.role, permission):
            return False
        condition = binding.condition
        return condition is None or evaluate(condition.expression, request) is Truth.TRUE

    def _carries(self, role: str, permission: str) -> bool:
        try:
            return permission in self.permissions_of(role)
        except NotFound:
            return False
