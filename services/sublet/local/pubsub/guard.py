"""
Which permission stands before what, for every edge alike. The policies that count are those of the
resource and of its project, as in the cloud.

Source: https://cloud.google.com/pubsub/docs/access-control#required_permissions
"""

from typing import Final

from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.service_accounts import service_account_resource
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.names import ProjectName, collection_of, project_of
from sublet.names import Email

SERVICE: Final = "pubsub.googleapis.com"
_TYPES: Final = {"topics": "Topic", "subscriptions": "Subscription", "snapshots": "Snapshot"}


class Guard:
    def __init__(self, iam: Iam) -> None:
        self._iam = iam

    def check(self, caller: Caller, verb: str, name: str) -> None:
        """
        Raises:
            AccessDenied: the caller lacks `pubsub.<collection of name>.<verb>`.
            Unauthenticated: nobody is calling.
        """
        permission = f"pubsub.{collection_of(name)}.{verb}"
        self._iam.authorize(caller, permission, _target(name))

    def check_project_of(self, caller: Caller, verb: str, name: str) -> None:
        """As `check`, for what is asked of the project that `name` is in, such as to create it."""
        self.check_project(caller, f"pubsub.{collection_of(name)}.{verb}", project_of(name))

    def check_project(self, caller: Caller, permission: str, project: ProjectName) -> None:
        target = Target(policies=(project,), name=project, service=SERVICE)
        self._iam.authorize(caller, permission, target)

    def check_act_as(self, caller: Caller, email: Email) -> None:
        """Without this, whoever may make a subscription could send requests as anybody."""
        resource = service_account_resource(email)
        _, _, domain = email.partition("@")
        project = ProjectName(f"projects/{domain.partition('.')[0]}")
        target = Target(policies=(resource, project), name=resource, service="iam.googleapis.com")
        self._iam.authorize(caller, "iam.serviceAccounts.actAs", target)

    def permitted(self, caller: Caller, permissions: list[str], name: str) -> list[str]:
        target = _target(name)
        return [p for p in permissions if self._iam.is_allowed(caller, p, target)]


def _target(name: str) -> Target:
    return Target(
        policies=(name, project_of(name)),
        name=name,
        type=f"{SERVICE}/{_TYPES[collection_of(name)]}",
        service=SERVICE,
    )
