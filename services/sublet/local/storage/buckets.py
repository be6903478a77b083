"""
Buckets: made, changed and deleted, and their policies' special rules.

Source: https://cloud.google.com/storage/docs/json_api/v1/buckets
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from sublet.buckets import Binding, Policy
from sublet.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.tokens import Caller
from sublet.local.projects import Projects
from sublet.local.storage import bucket_settings
from sublet.local.storage.access import PUBLIC, Access
from sublet.local.storage.bucket_settings import Bucket
from sublet.local.storage.preconditions import Preconditions
from sublet.names import check_bucket_name
from sublet.ports import Clock

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS buckets (
    name           TEXT PRIMARY KEY,
    project        TEXT NOT NULL,
    metageneration INTEGER NOT NULL,
    settings       TEXT NOT NULL,
    created_at     TEXT NOT NULL,
    updated_at     TEXT NOT NULL
) STRICT;
"""
_SERVICE: Final = "storage.googleapis.com"
_PERMISSION_PREFIX: Final = "storage."


class NotEmpty(Conflict):
    """Raised when a bucket is deleted that still has live or noncurrent objects."""


class Buckets:
    def __init__(self, database: Database, clock: Clock, iam: Iam, projects: Projects) -> None:
        self._database = database
        self._clock = clock
        self._iam = iam
        self._projects = projects
        self.access = Access(iam)
        database.create_tables(SCHEMA)

    def create(
        self,
        caller: Caller,
        project: str,
        body: Mapping[str, Any],
        *,
        object_retention: bool = False,
    ) -> Bucket:
        """
        Raises:
            AlreadyExists: the name is taken, by whomever.
        """
        name = check_bucket_name(str(body.get("name") or ""))
        if not project:
            raise InvalidRequest("Required parameter: project")
        self._projects.ensure(project)
        self._iam.authorize(caller, "storage.buckets.create", _project_target(project))
        if object_retention:
            self._iam.authorize(
                caller, "storage.buckets.enableObjectRetention", _project_target(project)
            )
        now = self._clock.now()
        settings = bucket_settings.created(body, now, object_retention=object_retention)
        with self._database.transaction():
            if self._database.row("SELECT 1 FROM buckets WHERE name = ?", name):
                raise AlreadyExists(
                    "The requested bucket name is not available; buckets share one name space."
                )
            self._database.execute(
                "INSERT INTO buckets VALUES (?, ?, 1, ?, ?, ?)",
                name,
                project,
                json.dumps(settings),
                now.isoformat(),
                now.isoformat(),
            )
            bucket = self.unchecked(name)
            self._iam.policies.set(bucket.resource, _default_policy(project), wrote_version=3)
        return bucket

    def get(
        self,
        caller: Caller,
        name: str,
        permission: str = "storage.buckets.get",
        preconditions: Preconditions = Preconditions(),  # noqa: B008  immutable
    ) -> Bucket:
        bucket = self.unchecked(name)
        self.access.authorize(caller, permission, bucket)
        preconditions.check_read(0, bucket.metageneration, bucket.etag)
        return bucket

    def unchecked(self, name: str) -> Bucket:
        """The bucket, for whoever checks the right to an object in it."""
        row = self._database.row("SELECT * FROM buckets WHERE name = ?", name)
        if row is None:
            raise NotFound("The specified bucket does not exist.")
        return Bucket(
            name=row["name"],
            project=row["project"],
            project_number=self._projects.number_of(row["project"]),
            metageneration=row["metageneration"],
            settings=json.loads(row["settings"]),
            created_at=datetime.fromisoformat(row["created_at"]),
            updated_at=datetime.fromisoformat(row["updated_at"]),
        )

    def list_of(self, caller: Caller, project: str, prefix: str) -> list[Bucket]:
        self._iam.authorize(caller, "storage.buckets.list", _project_target(project))
        rows = self._database.rows(
            "SELECT name FROM buckets WHERE project = ? ORDER BY name", project
        )
        return [self.unchecked(row["name"]) for row in rows if row["name"].startswith(prefix)]

    def patch(
        self, caller: Caller, name: str, body: Mapping[str, Any], preconditions: Preconditions
    ) -> Bucket:
        """Change what the body names; null takes a setting back."""
        return self._change(caller, name, preconditions, body, bucket_settings.patched)

    def update(
        self, caller: Caller, name: str, body: Mapping[str, Any], preconditions: Preconditions
    ) -> Bucket:
        """Replace every setting; what the body does not name is as in a new bucket."""
        return self._change(caller, name, preconditions, body, bucket_settings.replaced)

    def lock_retention(self, caller: Caller, name: str, preconditions: Preconditions) -> Bucket:
        """
        Raises:
            InvalidRequest: no metageneration was named, or there is no policy to lock.
        """
        if preconditions.metageneration is None:
            raise InvalidRequest("Required parameter: ifMetagenerationMatch; locking is for good")

        def locked(before: Mapping[str, Any], *_: object) -> dict[str, Any]:
            if "retentionPolicy" not in before:
                raise InvalidRequest("The bucket has no retention policy to lock.")
            return {**before, "retentionPolicy": {**before["retentionPolicy"], "isLocked": True}}

        return self._change(caller, name, preconditions, {}, locked)

    def delete(self, caller: Caller, name: str, preconditions: Preconditions) -> None:
        """
        Raises:
            NotEmpty: something lives in it still, live or noncurrent.
        """
        bucket = self.get(caller, name, "storage.buckets.delete")
        preconditions.check_write(0, bucket.metageneration, bucket.etag)
        if self._database.row("SELECT 1 FROM objects WHERE bucket = ?", name):
            raise NotEmpty(
                "The bucket you tried to delete is not empty; delete its objects first, noncurrent "
                "ones too."
            )
        with self._database.transaction():
            self._database.execute("DELETE FROM notifications WHERE bucket = ?", name)
            self._database.execute("DELETE FROM buckets WHERE name = ?", name)
            self._iam.policies.delete(bucket.resource)

    def _change(
        self,
        caller: Caller,
        name: str,
        preconditions: Preconditions,
        body: Mapping[str, Any],
        change: Callable[[Mapping[str, Any], Mapping[str, Any], datetime], dict[str, Any]],
    ) -> Bucket:
        bucket = self.get(caller, name, "storage.buckets.update")
        preconditions.check_write(0, bucket.metageneration, bucket.etag)
        now = self._clock.now()
        self._database.execute(
            "UPDATE buckets SET settings = ?, metageneration = metageneration + 1, updated_at = ? "
            "WHERE name = ?",
            json.dumps(change(bucket.settings, body, now)),
            now.isoformat(),
            name,
        )
        return self.unchecked(name)

    # --- policy -----------------------------------------------------------------------------------

    def policy(self, caller: Caller, name: str, requested_version: int) -> Policy:
        """
        Raises:
            InvalidRequest: the policy has conditions, and the caller would not see them.
        """
        bucket = self.get(caller, name, "storage.buckets.getIamPolicy")
        policy = self._iam.policies.get(bucket.resource)
        if policy.version > requested_version:
            raise InvalidRequest(
                "Requested policy version has to be 3 for a policy with conditions; "
                f"got optionsRequestedPolicyVersion={requested_version}"
            )
        return policy

    def set_policy(self, caller: Caller, name: str, policy: Policy) -> Policy:
        bucket = self.get(caller, name, "storage.buckets.setIamPolicy")
        self.check_policy(bucket, policy)
        return self._iam.policies.set(bucket.resource, policy, wrote_version=policy.version)

    def check_policy(self, bucket: Bucket, policy: Policy) -> None:
        """
        Raises:
            FailedPrecondition, InvalidRequest: nothing in that bucket may have such a policy.
        """
        members = {member.casefold() for binding in policy.bindings for member in binding.members}
        if bucket.prevents_public_access and members & PUBLIC:
            raise FailedPrecondition(
                "The member bindings allUsers and allAuthenticatedUsers are not allowed since "
                "public access prevention is enforced."
            )
        if not bucket.is_uniform and any(binding.condition for binding in policy.bindings):
            raise InvalidRequest(
                "Conditions in a bucket's policy need uniform bucket-level access."
            )
        for binding in policy.bindings:
            self._check_role(binding.role)

    def permitted(
        self, caller: Caller, name: str, permissions: list[str], object_name: str | None = None
    ) -> list[str]:
        """
        Those of the permissions that the caller has on a bucket, or on an object of it.

        Raises:
            InvalidRequest: a permission is not one of Cloud Storage's.
        """
        for permission in permissions:
            if not permission.startswith(_PERMISSION_PREFIX):
                raise InvalidRequest(
                    f"got permission {permission!r}; expected such as storage.objects.get"
                )
        return self.access.permitted(caller, permissions, self.unchecked(name), object_name)

    def _check_role(self, role: str) -> None:
        try:
            self._iam.permissions_of(role)
        except NotFound as error:
            raise InvalidRequest(str(error)) from None


def _project_target(project: str) -> Target:
    return Target(policies=(f"projects/{project}",), name=f"projects/{project}", service=_SERVICE)


def _default_policy(project: str) -> Policy:
    """
    The legacy grants to a project's owners, editors and viewers that every new bucket comes with.
    """
    owners = (f"projectEditor:{project}", f"projectOwner:{project}")
    return Policy(
        version=1,
        etag="",
        bindings=(
            Binding(role="roles/storage.legacyBucketOwner", members=owners),
            Binding(role="roles/storage.legacyBucketReader", members=(f"projectViewer:{project}",)),
        ),
    )
