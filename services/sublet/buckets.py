"""What a bucket says of itself: its identity, and its IAM policy as read, immutable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Final

from sublet.names import AccountName
from sublet.statements import canonical_json

POLICY_VERSION: Final = 3
"""Read at version 1, a policy hides its conditions, and conditional grants look unconditional."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    expression: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    role: str
    members: tuple[str, ...]
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A bucket's IAM policy as read, immutable; `etag` is what a change to it must name."""

    version: int
    etag: str
    bindings: tuple[Binding, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it shows every condition; version 1 is also what has none is answered with."""
        return self.version in (1, POLICY_VERSION)

    @property
    def sha256(self) -> str:
        """Of what it grants, whatever its etag and the order of its bindings."""
        grants = sorted(
            (b.role, *sorted(b.members), b.condition.expression if b.condition else "")
            for b in self.bindings
        )
        return sha256(canonical_json(grants)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPolicy:
    """
    The policy of a managed folder, which adds to the bucket's for every name that begins with it.
    """

    folder: str
    policy: Policy

    def covers(self, object_name: str) -> bool:
        return object_name.startswith(self.folder)


def digest_of(policy: Policy, folders: Iterable[FolderPolicy]) -> str:
    """Of what all of them grant together; the bucket's own digest where no folder adds to it."""
    added = sorted((folder.folder, folder.policy.sha256) for folder in folders)
    return sha256(canonical_json([policy.sha256, *added])).hexdigest() if added else policy.sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketMetadata:
    bucket: str
    project_number: int
    created_at: datetime
    location: str
    uniform_access: bool
    public_access_prevention: str
    versioning: bool
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> "BucketIdentity":
        return BucketIdentity(
            bucket=self.bucket,
            project_number=self.project_number,
            created_at=self.created_at,
            location=self.location,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketIdentity:
    """What tells a bucket from another of the same name, made after the first was deleted."""

    bucket: str
    project_number: int
    created_at: datetime
    location: str

    def difference(self, now: "BucketIdentity") -> str | None:
        """Say what changed, in words, or None."""
        for part in ("bucket", "project_number", "created_at", "location"):
            was, got = getattr(self, part), getattr(now, part)
            if was != got:
                return f"{part} was {was}, is {got}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedBucket:
    """
    The identity of a bucket when an account first used it; one record for each account and bucket.
    `prefixes` are the folders, and single objects, that the account has proved to be its own.
    """

    account: AccountName
    identity: BucketIdentity
    pinned_at: datetime
    prefixes: tuple[str, ...] = ()

    @staticmethod
    def key_of(account: AccountName, bucket: str) -> str:
        return f"{account}/buckets/{bucket}"

    @property
    def key(self) -> str:
        return self.key_of(self.account, self.identity.bucket)

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.account,
            "bucket": self.identity.bucket,
            "created_at": self.pinned_at.isoformat(),
        }

    def covers(self, object_name: str) -> bool:
        return any(object_name.startswith(prefix) for prefix in self.prefixes)

    def with_prefix(self, prefix: str) -> "PinnedBucket":
        if self.covers(prefix):
            return self
        return replace(self, prefixes=(*self.prefixes, prefix))

    def without_what_covers(self, object_name: str) -> "PinnedBucket":
        kept = tuple(prefix for prefix in self.prefixes if not object_name.startswith(prefix))
        return replace(self, prefixes=kept)


@dataclass(frozen=True, slots=True)
class NotVisible:
    """Something that could not be read, and why."""

    reason: str
