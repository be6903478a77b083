"""
Managed folders: prefixes of a bucket with a policy of their own, which counts for every object
below, beside the bucket's and the project's.

Source: https://cloud.google.com/storage/docs/managed-folders
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sublet.buckets import Policy
from sublet.codec import rfc3339
from sublet.errors import AlreadyExists, Conflict, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import Caller
from sublet.local.storage.bucket_settings import Bucket
from sublet.local.storage.buckets import Buckets
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS managed_folders (
    bucket     TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (bucket, name)
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedFolder:
    """`name` ends in a slash."""

    bucket: str
    name: str
    created_at: datetime

    def to_wire(self) -> dict[str, Any]:
        created_at = rfc3339(self.created_at)
        return {
            "kind": "storage#managedFolder",
            "id": f"{self.bucket}/{self.name}",
            "bucket": self.bucket,
            "name": self.name,
            "metageneration": "1",
            "createTime": created_at,
            "updateTime": created_at,
        }


class ManagedFolders:
    def __init__(self, database: Database, clock: Clock, iam: Iam, buckets: Buckets) -> None:
        self._database = database
        self._clock = clock
        self._iam = iam
        self._buckets = buckets
        database.create_tables(SCHEMA)

    def create(self, caller: Caller, bucket_name: str, name: str) -> ManagedFolder:
        """
        Raises:
            InvalidRequest: the name does not end in a slash, or objects there have ACLs.
            AlreadyExists: it is there.
        """
        bucket = self._buckets.get(caller, bucket_name, "storage.managedFolders.create")
        if not name.endswith("/") or name.startswith("/") or "//" in name:
            raise InvalidRequest(f"got managed folder {name!r}; expected such as data/2026/")
        if not bucket.is_uniform:
            raise InvalidRequest("Managed folders need uniform bucket-level access.")
        if self._find(bucket_name, name):
            raise AlreadyExists(f"The managed folder {bucket_name}/{name} already exists.")
        made = ManagedFolder(bucket=bucket_name, name=name, created_at=self._clock.now())
        self._database.execute(
            "INSERT INTO managed_folders VALUES (?, ?, ?)",
            bucket_name,
            name,
            made.created_at.isoformat(),
        )
        return made

    def get(self, caller: Caller, bucket: str, name: str) -> ManagedFolder:
        self._authorize(caller, "storage.managedFolders.get", bucket, name)
        return self._require(bucket, name)

    def list_of(self, caller: Caller, bucket: str, prefix: str) -> list[ManagedFolder]:
        self._buckets.get(caller, bucket, "storage.managedFolders.list")
        rows = self._database.rows(
            "SELECT * FROM managed_folders WHERE bucket = ? ORDER BY name", bucket
        )
        return [_folder(row) for row in rows if row["name"].startswith(prefix)]

    def delete(self, caller: Caller, bucket_name: str, name: str, *, even_if_full: bool) -> None:
        """
        With its policy; what lies below stays, and falls back to the bucket's.

        Raises:
            Conflict: something lies below, and the caller did not say that it may.
        """
        bucket = self._authorize(caller, "storage.managedFolders.delete", bucket_name, name)
        self._require(bucket_name, name)
        below = self._database.row(
            "SELECT 1 FROM objects WHERE bucket = ? AND substr(name, 1, ?) = ? LIMIT 1",
            bucket_name,
            len(name),
            name,
        )
        if below and not even_if_full:
            raise Conflict(f"The managed folder {bucket_name}/{name} is not empty.")
        self._iam.policies.delete(bucket.folder_resource(name))
        self._database.execute(
            "DELETE FROM managed_folders WHERE bucket = ? AND name = ?", bucket_name, name
        )

    def check_none(self, bucket: str) -> None:
        """
        Raises:
            Conflict: there are some, so the bucket is not empty.
        """
        if self._database.row("SELECT 1 FROM managed_folders WHERE bucket = ? LIMIT 1", bucket):
            raise Conflict("The bucket you tried to delete is not empty: it has managed folders.")

    # --- policies ---------------------------------------------------------------------------------

    def policy(self, caller: Caller, bucket_name: str, name: str) -> Policy:
        permission = "storage.managedFolders.getIamPolicy"
        bucket = self._authorize(caller, permission, bucket_name, name)
        self._require(bucket_name, name)
        return self._iam.policies.get(bucket.folder_resource(name))

    def set_policy(self, caller: Caller, bucket_name: str, name: str, policy: Policy) -> Policy:
        permission = "storage.managedFolders.setIamPolicy"
        bucket = self._authorize(caller, permission, bucket_name, name)
        self._require(bucket_name, name)
        self._buckets.check_policy(bucket, policy)
        resource = bucket.folder_resource(name)
        return self._iam.policies.set(resource, policy, wrote_version=policy.version)

    def _authorize(self, caller: Caller, permission: str, bucket: str, name: str) -> Bucket:
        found = self._buckets.unchecked(bucket)
        self._iam.authorize(caller, permission, found.folder_target(name))
        return found

    def _require(self, bucket: str, name: str) -> ManagedFolder:
        found = self._find(bucket, name)
        if found is None:
            raise NotFound(f"The managed folder {bucket}/{name} does not exist.")
        return found

    def _find(self, bucket: str, name: str) -> ManagedFolder | None:
        row = self._database.row(
            "SELECT * FROM managed_folders WHERE bucket = ? AND name = ?", bucket, name
        )
        return _folder(row) if row else None


def _folder(row: Any) -> ManagedFolder:  # noqa: ANN401  a row of whichever table asks
    created_at = datetime.fromisoformat(row["created_at"])
    return ManagedFolder(bucket=row["bucket"], name=row["name"], created_at=created_at)
