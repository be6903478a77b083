"""
Buckets: their metadata, their policies' special rules, and the right to use them.

Source: https://cloud.google.com/storage/docs/json_api/v1/buckets
"""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sublet.buckets import Binding, Policy
from sublet.codec import rfc3339
from sublet.errors import AlreadyExists, Conflict, FailedPrecondition, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.tokens import Caller
from sublet.local.projects import Projects
from sublet.local.storage.preconditions import Preconditions
from sublet.names import bucket_resource_name, check_bucket_name, object_resource_name
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
_BUCKET_TYPE: Final = "storage.googleapis.com/Bucket"
_OBJECT_TYPE: Final = "storage.googleapis.com/Object"
_SERVICE: Final = "storage.googleapis.com"
_READ_ONLY: Final = frozenset(
    {"acl", "etag", "id", "kind", "metageneration", "name", "projectNumber", "selfLink"}
    | {"timeCreated", "updated"}
)
_DEFAULTS: Final[Mapping[str, Any]] = {
    "location": "US",
    "locationType": "multi-region",
    "storageClass": "STANDARD",
    "iamConfiguration": {
        "bucketPolicyOnly": {"enabled": False},
        "uniformBucketLevelAccess": {"enabled": False},
        "publicAccessPrevention": "inherited",
    },
}


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    project: str
    project_number: int
    metageneration: int
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime

    @property
    def resource(self) -> str:
        return f"buckets/{self.name}"

    @property
    def path(self) -> str:
        return bucket_resource_name(self.name)

    @property
    def is_versioned(self) -> bool:
        return bool(self.settings.get("versioning", {}).get("enabled"))

    @property
    def is_uniform(self) -> bool:
        return bool(self.settings["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"])

    @property
    def prevents_public_access(self) -> bool:
        return bool(self.settings["iamConfiguration"]["publicAccessPrevention"] == "enforced")

    def target(self, *, list_prefix: str | None = None) -> Target:
        attributes = {} if list_prefix is None else {f"{_SERVICE}/objectListPrefix": list_prefix}
        return Target(
            policies=(self.resource, f"projects/{self.project}"),
            name=self.path,
            type=_BUCKET_TYPE,
            service=_SERVICE,
            bucket=self.name,
            api_attributes=attributes,
        )

    def object_target(self, object_name: str) -> Target:
        return Target(
            policies=(self.resource, f"projects/{self.project}"),
            name=object_resource_name(self.name, object_name),
            type=_OBJECT_TYPE,
            service=_SERVICE,
            bucket=self.name,
        )

    def to_wire(self, base_url: str) -> dict[str, Any]:
        return {
            "kind": "storage#bucket",
            "id": self.name,
            "selfLink": f"{base_url}/storage/v1/b/{self.name}",
            "name": self.name,
            "projectNumber": str(self.project_number),
            "metageneration": str(self.metageneration),
            "etag": f"CA{self.metageneration}=",
            "timeCreated": rfc3339(self.created_at),
            "updated": rfc3339(self.updated_at),
            **self.settings,
        }


class Buckets:
    def __init__(self, database: Database, clock: Clock, iam: Iam, projects: Projects) -> None:
        self._database = database
        self._clock = clock
        self._iam = iam
        self._projects = projects
        database.create_tables(SCHEMA)

    def create(self, caller: Caller, project: str, body: Mapping[str, Any]) -> Bucket:
        """
        Raises:
            AlreadyExists: the name is taken, by whomever.
        """
        name = check_bucket_name(str(body.get("name") or ""))
        if not project:
            raise InvalidRequest("Required parameter: project")
        self._projects.ensure(project)
        self._iam.authorize(caller, "storage.buckets.create", _project_target(project))
        settings = _merged(_DEFAULTS, {k: v for k, v in body.items() if k not in _READ_ONLY})
        _mirror_uniform_access(settings)
        now = self._clock.now().isoformat()
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
                now,
                now,
            )
            bucket = self._get(name)
            self._iam.policies.set(bucket.resource, _default_policy(project), wrote_version=3)
        return bucket

    def get(self, caller: Caller, name: str, permission: str = "storage.buckets.get") -> Bucket:
        bucket = self._get(name)
        self._iam.authorize(caller, permission, bucket.target())
        return bucket

    def unchecked(self, name: str) -> Bucket:
        """The bucket, for whoever checks the right to an object in it."""
        return self._get(name)

    def list_of(self, caller: Caller, project: str, prefix: str) -> list[Bucket]:
        self._iam.authorize(caller, "storage.buckets.list", _project_target(project))
        rows = self._database.rows(
            "SELECT name FROM buckets WHERE project = ? ORDER BY name", project
        )
        return [self._get(row["name"]) for row in rows if row["name"].startswith(prefix)]

    def patch(
        self, caller: Caller, name: str, body: Mapping[str, Any], preconditions: Preconditions
    ) -> Bucket:
        bucket = self.get(caller, name, "storage.buckets.update")
        preconditions.check_metageneration(bucket.metageneration)
        settings = _merged(bucket.settings, {k: v for k, v in body.items() if k not in _READ_ONLY})
        _mirror_uniform_access(settings)
        self._database.execute(
            "UPDATE buckets SET settings = ?, metageneration = metageneration + 1, updated_at = ? "
            "WHERE name = ?",
            json.dumps(settings),
            self._clock.now().isoformat(),
            name,
        )
        return self._get(name)

    def delete(self, caller: Caller, name: str, preconditions: Preconditions) -> None:
        bucket = self.get(caller, name, "storage.buckets.delete")
        preconditions.check_metageneration(bucket.metageneration)
        if self._database.row("SELECT 1 FROM objects WHERE bucket = ?", name):
            raise Conflict("The bucket you tried to delete is not empty.")
        with self._database.transaction():
            self._database.execute("DELETE FROM notifications WHERE bucket = ?", name)
            self._database.execute("DELETE FROM buckets WHERE name = ?", name)
            self._iam.policies.delete(bucket.resource)

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
        members = {member for binding in policy.bindings for member in binding.members}
        if bucket.prevents_public_access and members & {"allUsers", "allAuthenticatedUsers"}:
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
        return self._iam.policies.set(bucket.resource, policy, wrote_version=policy.version)

    def permitted(self, caller: Caller, name: str, permissions: list[str]) -> list[str]:
        bucket = self._get(name)
        return [p for p in permissions if self._iam.is_allowed(caller, p, bucket.target())]

    def _check_role(self, role: str) -> None:
        try:
            self._iam.permissions_of(role)
        except NotFound as error:
            raise InvalidRequest(str(error)) from None

    def _get(self, name: str) -> Bucket:
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


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396): null removes, objects merge, everything else replaces."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inner = merged.get(key)
            merged[key] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _mirror_uniform_access(settings: dict[str, Any]) -> None:
    """Older clients read the setting under its first name."""
    access = settings["iamConfiguration"]
    access["bucketPolicyOnly"] = dict(access["uniformBucketLevelAccess"])
