"""
What each predefined Cloud Storage role carries, frozen with a date: the verifier must know that a
role contains a permission without asking for a right it should not have. Custom roles are in no
table, so what they carry is not visible.

Source: https://cloud.google.com/storage/docs/access-control/iam-roles
"""

from collections.abc import Mapping
from datetime import date, timedelta
from types import MappingProxyType
from typing import Final

TABLE_DATE: Final = date(2026, 11, 22)

VERIFIER_PERMISSIONS: Final = (
    "storage.buckets.get",
    "storage.buckets.getIamPolicy",
    "storage.managedFolders.getIamPolicy",
    "storage.managedFolders.list",
)
"""What a customer's own role gives the verifier: to see whose a bucket is and what it grants."""

_READ = frozenset({"storage.objects.get", "storage.objects.list"})
_FOLDERS_READ = frozenset(
    {
        "storage.folders.get",
        "storage.folders.list",
        "storage.managedFolders.get",
        "storage.managedFolders.list",
    }
)
_FOLDERS = _FOLDERS_READ | {
    "storage.folders.create",
    "storage.folders.delete",
    "storage.folders.rename",
    "storage.managedFolders.create",
    "storage.managedFolders.delete",
}
_UPLOADS = frozenset(
    {
        "storage.multipartUploads.abort",
        "storage.multipartUploads.create",
        "storage.multipartUploads.list",
        "storage.multipartUploads.listParts",
    }
)
_CREATE = (_UPLOADS - {"storage.multipartUploads.list"}) | {
    "storage.folders.create",
    "storage.managedFolders.create",
    "storage.objects.create",
}
_CHANGE = frozenset(
    {
        "storage.objects.delete",
        "storage.objects.move",
        "storage.objects.restore",
        "storage.objects.update",
    }
)
_OBJECT_POLICY = frozenset({"storage.objects.getIamPolicy", "storage.objects.setIamPolicy"})
_FOLDER_POLICY = frozenset(
    {"storage.managedFolders.getIamPolicy", "storage.managedFolders.setIamPolicy"}
)
_RETENTION = frozenset(
    {"storage.objects.overrideUnlockedRetention", "storage.objects.setRetention"}
)
_BUCKET_READ = frozenset({"storage.buckets.get"})
_BUCKET_OWN = _BUCKET_READ | {
    "storage.buckets.getIamPolicy",
    "storage.buckets.setIamPolicy",
    "storage.buckets.update",
}
_BUCKETS = _BUCKET_OWN | {
    "storage.buckets.create",
    "storage.buckets.delete",
    "storage.buckets.enableObjectRetention",
    "storage.buckets.getObjectInsights",
    "storage.buckets.list",
    "storage.buckets.relocate",
    "storage.buckets.restore",
}
_OBJECT_USER = _READ | _CREATE | _CHANGE | _FOLDERS | _UPLOADS
_OBJECT_ADMIN = _OBJECT_USER | _OBJECT_POLICY | _FOLDER_POLICY | _RETENTION
_LEGACY_READER = (
    _BUCKET_READ | _FOLDERS_READ | {"storage.multipartUploads.list", "storage.objects.list"}
)
_LEGACY_WRITER = (
    _LEGACY_READER | _CREATE | {"storage.managedFolders.delete", "storage.objects.delete"}
)

PREDEFINED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "roles/storage.admin": _OBJECT_ADMIN | _BUCKETS,
        "roles/storage.bucketViewer": _BUCKET_READ | {"storage.buckets.list"},
        "roles/storage.expressModeServiceInput": frozenset(
            {
                "storage.objects.create",
                "storage.objects.delete",
                "storage.objects.list",
                "storage.objects.update",
            }
        ),
        "roles/storage.expressModeServiceOutput": _READ | {"storage.objects.delete"},
        "roles/storage.folderAdmin": _OBJECT_ADMIN,
        "roles/storage.legacyBucketOwner": _LEGACY_WRITER | _BUCKET_OWN | _FOLDER_POLICY,
        "roles/storage.legacyBucketReader": _LEGACY_READER,
        "roles/storage.legacyBucketWriter": _LEGACY_WRITER,
        "roles/storage.legacyObjectOwner": _OBJECT_POLICY
        | {"storage.objects.get", "storage.objects.update", *_RETENTION},
        "roles/storage.legacyObjectReader": frozenset({"storage.objects.get"}),
        "roles/storage.objectAdmin": _OBJECT_ADMIN,
        "roles/storage.objectCreator": _CREATE,
        "roles/storage.objectUser": _OBJECT_USER,
        "roles/storage.objectViewer": _READ | _FOLDERS_READ,
    }
)

OBJECT_VIEWER: Final = "roles/storage.objectViewer"
OBJECT_CREATOR: Final = "roles/storage.objectCreator"


MAX_TABLE_AGE: Final = timedelta(days=90)
"""Google changes what predefined roles carry, a few times a year."""


def is_custom(role: str) -> bool:
    return role.startswith(("projects/", "organizations/"))


def carries(role: str, permission: str) -> bool | None:
    """
    Say whether `role` contains `permission`; None for a role whose contents are not known here.
    """
    permissions = PREDEFINED.get(role)
    return None if permissions is None else permission in permissions
