"""
What roles carry in the local cloud: the predefined ones that sublet's parts use, and custom ones.

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
        "run.jobs.list",
        "run.operations.get",
        "run.tasks.get",
        "run.tasks.list",
    }
)
_RUN_EXECUTE = frozenset({"run.executions.cancel", "run.jobs.run"})

PREDEFINED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        **STORAGE_ROLES,
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
        "roles/run.jobsExecutor": _RUN_EXECUTE,
        "roles/run.jobsExecutorWithOverrides": _RUN_EXECUTE | {"run.jobs.runWithOverrides"},
        "roles/run.viewer": _RUN_VIEW,
    }
)
