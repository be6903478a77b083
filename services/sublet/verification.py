"""
Verification: may this account's jobs read this object, and is it a dataset? First what the bucket's
policy proves, without reading a byte; then, under a lease, one byte through the token chain that
jobs use, and every row. The answer is a report, never an exception, unless something passing is in
the way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sublet.access import (
    AccessReport,
    check_policy,
    may_know,
    read_proof,
    read_refusal,
    verify,
)
from sublet.accounts import Account
from sublet.buckets import BucketIdentity, BucketMetadata, FolderPolicy, NotVisible, Policy
from sublet.datasets import OK, ListedObject, ObjectMetadata, Status
from sublet.errors import AccessDenied
from sublet.findings import Question
from sublet.grants import names
from sublet.handover import Assignment
from sublet.holding import Holding, held
from sublet.names import Email, LeaseName, ObjectVersion, OutputPrefix
from sublet.ownership import Ownership
from sublet.ports import (
    BucketInspector,
    Clock,
    LeaseBroker,
    LeasedObjects,
    OpensLeasedObjects,
    Registry,
)
from sublet.roles import is_custom
from sublet.rows import RowReport, check_rows

READ_BYTES: Final = 8 * 2**20
_FIRST_BYTES: Final = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationTerms:
    """
    Access is proved from now until `longest_job` from now, so that a grant that ends midway is
    refused before anything is spent; rows are read for at most `row_check`, the rest is the
    trainer's to check.
    """

    longest_job: timedelta = timedelta(hours=12)
    row_check: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """
    What one object was found to be. Everything after `access` is missing if access was refused.
    """

    access: AccessReport
    bucket_identity: BucketIdentity | None = None
    metadata: ObjectMetadata | None = None
    rows: RowReport | None = None
    reads_under: LeaseName | None = None
    unusable: str = ""

    def status(self) -> Status:
        """OK, or the first reason why this is not a dataset that jobs may use."""
        if refusals := self.access.reasons():
            more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
            return Status(code="PERMISSION_DENIED", message=f"{refusals[0]}{more}")
        if self.unusable:
            return Status(code="INVALID_ARGUMENT", message=self.unusable)
        if self.rows and self.rows.problems:
            first, others = self.rows.problems[0], self.rows.num_problems - 1
            more = f" (and {others} more lines)" if others else ""
            return Status(
                code="INVALID_ARGUMENT", message=f"line {first.line}: {first.reason}{more}"
            )
        return OK


class Verification:
    def __init__(
        self,
        *,
        registry: Registry,
        inspector: BucketInspector,
        broker: LeaseBroker,
        open_objects: OpensLeasedObjects,
        clock: Clock,
        verifier: Email,
        terms: VerificationTerms,
    ) -> None:
        self.ownership = Ownership(registry, inspector)
        self._inspector = inspector
        self._broker = broker
        self._open_objects = open_objects
        self._clock = clock
        self._verifier = verifier
        self._terms = terms

    def check_access(
        self, account: Account, version: ObjectVersion, output: OutputPrefix | None
    ) -> tuple[AccessReport, BucketIdentity | None]:
        """What the bucket's metadata and policy prove; not a byte is read."""
        metadata = self._inspector.metadata(version.bucket)
        policy = self._inspector.policy(version.bucket)
        folders = self._inspector.managed_folders(version.bucket)
        pinned = self.ownership.pinned(account.name, version.bucket)
        if pinned and isinstance(metadata, BucketMetadata) and pinned.difference(metadata.identity):
            self.ownership.set_aside(account.name, metadata)
        now = self._clock.now()
        question = Question(
            account=account,
            verifier=self._verifier,
            bucket=version.bucket,
            object=version.object,
            output=output,
            metadata=metadata,
            policy=policy,
            folders=folders,
            custom_roles=self._custom_roles(account, metadata, policy, folders),
            pinned=pinned,
            others_prefixes=self.ownership.others_prefixes(account.name, version.bucket),
            since=now,
            until=now + self._terms.longest_job,
        )
        identity = None if isinstance(metadata, NotVisible) else metadata.identity
        return check_policy(question), identity

    def _custom_roles(
        self,
        account: Account,
        metadata: BucketMetadata | NotVisible,
        policy: Policy | NotVisible,
        folders: tuple[FolderPolicy, ...] | NotVisible,
    ) -> dict[str, frozenset[str]]:
        """
        What the custom roles carry that name one of ours, as far as the verifier may ask. Others
        decide nothing, the verifier's own among them.
        """
        if isinstance(policy, NotVisible) or not may_know(account, metadata, policy):
            return {}
        added = () if isinstance(folders, NotVisible) else (one.policy for one in folders)
        roles = {
            binding.role
            for shown in (policy, *added)
            for binding in shown.bindings
            if any(names(binding, email) for email in (account.email, *account.data_accounts))
        }
        asked = sorted(filter(is_custom, roles))
        found = {name: self._inspector.permissions_of(name) for name in asked}
        return {
            name: permissions
            for name, permissions in found.items()
            if not isinstance(permissions, NotVisible)
        }

    def examine(
        self,
        account: Account,
        version: ObjectVersion,
        output: OutputPrefix | None,
        *,
        row_check: timedelta | None = None,
    ) -> Examination:
        """
        Args:
            row_check: how long rows are read, where that is not the time of the terms.

        Raises:
            NotFound: the generation is not there (any more).
            TryAgain: no data account can be lit yet, or Google is busy.
        """
        access, identity = self.check_access(account, version, output)
        if access.policy_refusals() or identity is None:
            return Examination(access=access, bucket_identity=identity)
        lease = self._broker.open_for_verification(account.name, version, identity)
        with held(self._broker, self._clock, lease) as holding:
            seen = self._look(holding, lease, row_check or self._terms.row_check)
        return replace(
            seen,
            access=access.with_findings(*seen.access.findings),
            bucket_identity=identity,
            reads_under=lease.lease,
        )

    @contextmanager
    def listing(
        self, account: Account, folder: ObjectVersion, *, after: str = "", limit: int
    ) -> Iterator[list[ListedObject]]:
        """
        The objects in a folder, seen under a lease of its own that can read none of them.

        The lease is held while the caller looks further, so that a lease on what was found can
        share the data account; one that has just gone dark may not be lit again.

        Raises:
            AccessDenied: the bucket's policy does not prove what it must, or not the right to list.
            TryAgain: no data account can be lit yet, or Google is busy.
        """
        access, identity = self.check_access(account, folder, None)
        verify(access.policy_refusals(), url=folder.url)
        assert identity is not None
        lease = self._broker.open_for_verification(account.name, folder, identity)
        with held(self._broker, self._clock, lease) as holding:
            yield self._open_objects(holding).list_folder(folder, after=after, limit=limit)

    def prove_end(self, lease: LeaseName) -> None:
        """Once more, where the data account was shared when the lease ended."""
        self._broker.revoke(lease, because="its holder finished")

    def _look(self, holding: Holding, lease: Assignment, row_check: timedelta) -> Examination:
        """Metadata, then every row; findings of the reading itself are all it reports."""
        assert lease.data_account is not None
        blank = AccessReport(
            bucket=lease.reads.bucket,
            object=lease.reads.object,
            checked_at=self._clock.now(),
            holds_until=lease.expires_at,
            policy_etag="",
            findings=(),
        )
        objects = self._open_objects(holding)
        try:
            metadata = objects.metadata(lease.reads)
            holding.found = metadata.version.generation
            unusable = _unusable(metadata)
            wanted = min(1 if unusable else _FIRST_BYTES, metadata.size_bytes)
            first = objects.read(metadata.version, 0, wanted) if wanted else b""
        except AccessDenied as error:
            refusal = read_refusal(lease.reads, data_account=lease.data_account, answer=str(error))
            return Examination(access=blank.with_findings(refusal))
        holding.bytes_read += len(first)
        proof = read_proof(metadata.version, data_account=lease.data_account, num_bytes=len(first))
        access = blank.with_findings(proof)
        if unusable:
            return Examination(access=access, metadata=metadata, unusable=unusable)
        deadline = self._clock.now() + row_check
        rows = check_rows(
            _chunks(first, objects, metadata, holding),
            is_out_of_time=lambda: self._clock.now() >= deadline,
        )
        return Examination(access=access, metadata=metadata, rows=rows)


def _unusable(metadata: ObjectMetadata) -> str:
    if metadata.size_bytes == 0:
        return "the object is empty; expected JSONL rows"
    if metadata.content_encoding not in ("", "identity"):
        return (
            f"the object has Content-Encoding {metadata.content_encoding}; upload plain JSONL: "
            "its checksum and byte offsets must mean the rows themselves"
        )
    return ""


def _chunks(
    first: bytes, objects: LeasedObjects, metadata: ObjectMetadata, holding: Holding
) -> Iterator[bytes]:
    yield first
    start = len(first)
    while start < metadata.size_bytes:
        end = min(start + READ_BYTES, metadata.size_bytes)
        chunk = objects.read(metadata.version, start, end)
        holding.bytes_read += len(chunk)
        yield chunk
        start = end
