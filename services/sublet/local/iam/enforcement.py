"""
The one place of the local cloud that says yes or no, and its parts: accounts, tokens, policies,
roles, and the trace of what was refused.
"""

from datetime import timedelta

from sublet.errors import AccessDenied, Unauthenticated
from sublet.local.database import Database
from sublet.local.iam.custom_roles import Roles
from sublet.local.iam.decisions import Decisions, Target
from sublet.local.iam.policies import Policies
from sublet.local.iam.service_accounts import ServiceAccounts
from sublet.local.iam.tokens import AccessTokens, Caller
from sublet.local.iam.trace import DenialTrace, denial
from sublet.ports import Clock

__all__ = ["Iam", "Target"]


class Iam:
    """
    Args:
        iam_delay: how long after a change of policy the one before it still decides; the real
            service takes seconds to minutes.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        anonymous_is_owner: bool = True,
        iam_delay: timedelta = timedelta(0),
    ) -> None:
        self._clock = clock
        self.trace = DenialTrace()
        self.policies = Policies(database, clock, iam_delay)
        self.roles = Roles(database)
        self.service_accounts = ServiceAccounts(database, clock, self.policies)
        self.tokens = AccessTokens(
            database,
            clock,
            self.service_accounts,
            self.trace,
            anonymous_is_owner=anonymous_is_owner,
        )
        self._decisions = Decisions(self.policies, self.roles, clock)

    def create_role(self, name: str, permissions: frozenset[str]) -> None:
        """Make or replace a custom role, `projects/P/roles/R`."""
        self.roles.put(name, permissions)

    def permissions_of(self, role: str) -> frozenset[str]:
        """
        Raises:
            NotFound: no such role, predefined or custom.
        """
        return self.roles.permissions_of(role)

    def is_allowed(self, caller: Caller, permission: str, target: Target) -> bool:
        return self._decisions.is_allowed(caller, permission, target)

    def authorize(self, caller: Caller, permission: str, target: Target) -> None:
        """
        Raises:
            Unauthenticated: nobody is calling, and nobody may not.
            AccessDenied: somebody is calling who may not; names the permission.
        """
        if self.is_allowed(caller, permission, target):
            return
        self._remember(caller, permission, target)
        message = (
            f"{caller} does not have {permission} access to {target.name}. "
            f"Permission '{permission}' denied on resource (or it may not exist)."
        )
        if caller.email is None:
            raise Unauthenticated(message)
        raise AccessDenied(message)

    def _remember(self, caller: Caller, permission: str, target: Target) -> None:
        near = list(self._decisions.near_misses(caller, permission, target))
        self.trace.remember(
            denial(
                time=self._clock.now(),
                principal=f"serviceAccount:{caller.email}" if caller.email else "",
                permission=permission,
                resource=target.name,
                policies=target.policies,
                near=near,
            )
        )
