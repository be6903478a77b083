"""What a bucket says of itself: its identity, and its IAM policy as read, immutable."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sublet.names import AccountName

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


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketMetadata:
    bucket: str
    project_number: int
    created_at: datetime
    location: str
    uniform_access: bool
    public_access_prevention: str
    versioning: bool

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
        for field in ("bucket", "project_number", "created_at", "location"):
            was, got = getattr(self, field), getattr(now, field)
            if was != got:
                return f"{field} was {was}, is {got}"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedBucket:
    """
    The identity of a bucket when an account first used it; one record for each account and bucket.
    """

    account: AccountName
    identity: BucketIdentity
    pinned_at: datetime

    @staticmethod
    def key_of(account: AccountName, bucket: str) -> str:
        return f"{account}/buckets/{bucket}"

    @property
    def key(self) -> str:
        return self.key_of(self.account, self.identity.bucket)

    def index(self) -> Mapping[str, str]:
        return {"account": self.account}


@dataclass(frozen=True, slots=True)
class NotVisible:
    """Something that could not be read, and why."""

    reason: str
