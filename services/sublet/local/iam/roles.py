"""
What predefined roles carry in the local cloud: those of the services that are here, and the basic
ones, which carry what those services have. Frozen by hand; a permission that no service here asks
for is in none of them.

Source: https://cloud.google.com/iam/docs/roles-permissions
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from sublet.roles import PREDEFINED as STORAGE_ROLES

_PUBSUB_VIEW = frozenset(
    {
        "pubsub.snapshots.get",
        "pubsub.snapshots.list",
        "pubsub.subscriptions.get",
        "pubsub.subscriptions.list",
        "pubsub.topics.get",
        "pubsub.topics.list",
    }
)
_PUBSUB_SUBSCRIBE = frozenset(
    {"pubsub.snapshots.seek", "pubsub.subscriptions.consume", "pubsub.topics.attachSubscription"}
)
_PUBSUB_EDIT = (
    _PUBSUB_VIEW
    | _PUBSUB_SUBSCRIBE
    | {
        "pubsub.snapshots.create",
        "pubsub.snapshots.delete",
        "pubsub.snapshots.update",
        "pubsub.subscriptions.create",
        "pubsub.subscriptions.delete",
        "pubsub.subscriptions.update",
        "pubsub.topics.create",
        "pubsub.topics.delete",
        "pubsub.topics.detachSubscription",
        "pubsub.topics.publish",
        "pubsub.topics.update",
    }
)
_PUBSUB_ADMIN = _PUBSUB_EDIT | {
    f"pubsub.{kind}.{verb}"
    for kind in ("snapshots", "subscriptions", "topics")
    for verb in ("getIamPolicy", "setIamPolicy")
}
_RUN_VIEW = frozenset(
    {
        "run.executions.get",
        "run.executions.list",
        "run.jobs.get",
        "run.jobs.getIamPolicy",
        "run.jobs.list",
        "run.operations.get",
        "run.operations.list",
        "run.tasks.get",
        "run.tasks.list",
    }
)
_RUN_EXECUTE = frozenset({"run.executions.cancel", "run.jobs.run"})
_RUN_DEVELOP = (
    _RUN_VIEW
    | _RUN_EXECUTE
    | {
        "run.executions.delete",
        "run.jobs.create",
        "run.jobs.delete",
        "run.jobs.runWithOverrides",
        "run.jobs.update",
        "run.operations.delete",
    }
)
_ACCOUNTS_VIEW = frozenset({"iam.serviceAccounts.get", "iam.serviceAccounts.list"})
_ACCOUNTS_ADMIN = _ACCOUNTS_VIEW | {
    f"iam.serviceAccounts.{verb}"
    for verb in (
        *("create", "delete", "disable", "enable", "getIamPolicy", "setIamPolicy"),
        *("undelete", "update"),
    )
}
_KEYS_ADMIN = frozenset(
    f"iam.serviceAccountKeys.{verb}"
    for verb in ("create", "delete", "disable", "enable", "get", "list")
)
_ROLES_VIEW = frozenset({"iam.roles.get", "iam.roles.list"})
_PROJECT_POLICY = frozenset(
    {
        "resourcemanager.projects.get",
        "resourcemanager.projects.getIamPolicy",
        "resourcemanager.projects.setIamPolicy",
    }
)

_NARROW: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        **STORAGE_ROLES,
        "roles/iam.roleAdmin": _ROLES_VIEW
        | {f"iam.roles.{verb}" for verb in ("create", "delete", "undelete", "update")},
        "roles/iam.roleViewer": _ROLES_VIEW,
        "roles/iam.serviceAccountAdmin": _ACCOUNTS_ADMIN,
        "roles/iam.serviceAccountKeyAdmin": _KEYS_ADMIN | _ACCOUNTS_VIEW,
        "roles/iam.serviceAccountOpenIdTokenCreator": frozenset(
            {"iam.serviceAccounts.getOpenIdToken"}
        ),
        "roles/iam.serviceAccountViewer": _ACCOUNTS_VIEW
        | {"iam.serviceAccountKeys.get", "iam.serviceAccountKeys.list"},
        "roles/iam.workloadIdentityUser": frozenset(
            {
                "iam.serviceAccounts.get",
                "iam.serviceAccounts.getAccessToken",
                "iam.serviceAccounts.getOpenIdToken",
                "iam.serviceAccounts.list",
            }
        ),
        "roles/resourcemanager.projectIamAdmin": _PROJECT_POLICY,
        "roles/iam.serviceAccountTokenCreator": frozenset(
            {
                "iam.serviceAccounts.get",
                "iam.serviceAccounts.getAccessToken",
                "iam.serviceAccounts.getOpenIdToken",
                "iam.serviceAccounts.implicitDelegation",
                "iam.serviceAccounts.list",
                "iam.serviceAccounts.signBlob",
                "iam.serviceAccounts.signJwt",
            }
        ),
        "roles/iam.serviceAccountUser": frozenset(
            {"iam.serviceAccounts.actAs", "iam.serviceAccounts.get", "iam.serviceAccounts.list"}
        ),
        "roles/pubsub.admin": _PUBSUB_ADMIN,
        "roles/pubsub.editor": _PUBSUB_EDIT,
        "roles/pubsub.publisher": frozenset({"pubsub.topics.publish"}),
        "roles/pubsub.subscriber": _PUBSUB_SUBSCRIBE,
        "roles/pubsub.viewer": _PUBSUB_VIEW,
        "roles/run.admin": _RUN_DEVELOP | {"run.jobs.setIamPolicy"},
        "roles/run.developer": _RUN_DEVELOP,
        "roles/run.invoker": frozenset({"run.jobs.run"}),
        "roles/run.jobsExecutor": _RUN_EXECUTE,
        "roles/run.jobsExecutorWithOverrides": _RUN_EXECUTE | {"run.jobs.runWithOverrides"},
        "roles/run.viewer": _RUN_VIEW,
    }
)

_ALL = frozenset[str]().union(*_NARROW.values())
_MINTING = frozenset(
    f"iam.serviceAccounts.{what}"
    for what in ("getAccessToken", "getOpenIdToken", "implicitDelegation", "signBlob", "signJwt")
)
"""No basic role carries these: to speak as an account has to be granted for itself."""

_OWNER = frozenset(p for p in _ALL if not p.startswith("storage.objects.")) - _MINTING
_VIEWER = frozenset(p for p in _OWNER if p.endswith((".get", ".list")))
_EDITOR = frozenset(
    p
    for p in _OWNER
    if not p.endswith("IamPolicy") and not p.startswith(("iam.roles.", "iam.serviceAccountKeys."))
)

PREDEFINED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        **_NARROW,
        "roles/editor": _EDITOR | _VIEWER,
        "roles/owner": _OWNER,
        "roles/viewer": _VIEWER,
    }
)
"""Basic roles reach objects only by a bucket's own bindings of projectOwner, Editor and Viewer."""


def smallest_role_with(permission: str) -> str | None:
    """
    The predefined role that carries a permission and the fewest others, those last that are kept
    for old buckets and for Google's own services; None if none does.
    """

    def cost(role: str) -> tuple[bool, int, str]:
        return "legacy" in role or "expressMode" in role, len(_NARROW[role]), role

    return min(
        (r for r, carried in _NARROW.items() if permission in carried), key=cost, default=None
    )
