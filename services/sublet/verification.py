"""
Verification: may this account's jobs read this object, and is it a dataset? First what the bucket's
policy proves, without reading a byte; then, under a lease, one byte through the token chain that
jobs use, and every row. The answer is a report, never an exception, unless something passing is in
the way. Small objects of one bucket may share one look at its policy and one lease; what is found
of each is its own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
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
from sublet.errors import AccessDenied, BetterAlone, SubletError
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
from sublet.together import attempt, outcome

READ_BYTES: Final = 8 * 2**20
_FIRST_BYTES: Final = 2**18
_LONGEST_SHARED_NAME: Final = 256
"""In bytes. A token carries the names of what it may read, and travels in a header."""


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
class Candidate:
    """An object that may become a dataset, and where a job would write."""

    object: ObjectVersion
    output: OutputPrefix | None = None

    @property
    def may_share(self) -> bool:
        is_short = len(self.object.object.encode()) <= _LONGEST_SHARED_NAME
        return is_short and not self.object.is_folder


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
        question = self._question(account, Candidate(object=version, output=output))
        return check_policy(question), _identity_in(question)

    def _question(self, account: Account, candidate: Candidate) -> Question:
        """All that one look at a bucket shows, put as the question about one object in it."""
        bucket = candidate.object.bucket
        metadata = self._inspector.metadata(bucket)
        policy = self._inspector.policy(bucket)
        folders = self._inspector.managed_folders(bucket)
        pinned = self.ownership.pinned(account.name, bucket)
        if pinned and isinstance(metadata, BucketMetadata) and pinned.difference(metadata.identity):
            self.ownership.set_aside(account.name, metadata)
        now = self._clock.now()
        return Question(
            account=account,
            verifier=self._verifier,
            bucket=bucket,
            object=candidate.object.object,
            output=candidate.output,
            metadata=metadata,
            policy=policy,
            folders=folders,
            custom_roles=self._custom_roles(account, metadata, policy, folders),
            pinned=pinned,
            others_prefixes=self.ownership.others_prefixes(account.name, bucket),
            since=now,
            until=now + self._terms.longest_job,
        )

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
        candidate = Candidate(object=version, output=output)
        [found] = self._examine(account, [candidate], row_check=row_check)
        return outcome(found)

    def examine_together(
        self, account: Account, candidates: Sequence[Candidate]
    ) -> list[Examination | SubletError]:
        """
        Several objects of one bucket, at most MOST_READ_TOGETHER, under one lease that can read
        those which the policy lets be read. Each generation must be named.

        Returns:
            For each what was found of it, or why nothing could be: what `examine` raises, and
            BetterAlone for one whose rows take more than a moment, or whose name is no file's or
            very long.
        """
        shared = [candidate for candidate in candidates if candidate.may_share]
        found = iter(self._examine(account, shared, most_bytes=_FIRST_BYTES) if shared else ())
        return [
            next(found)
            if candidate.may_share
            else BetterAlone(f"{candidate.object} cannot share a lease")
            for candidate in candidates
        ]

    def _examine(
        self,
        account: Account,
        candidates: Sequence[Candidate],
        *,
        row_check: timedelta | None = None,
        most_bytes: int | None = None,
    ) -> list[Examination | SubletError]:
        question = self._question(account, candidates[0])
        identity = _identity_in(question)
        reports = [
            check_policy(replace(question, object=one.object.object, output=one.output))
            for one in candidates
        ]
        found: list[Examination | SubletError] = [
            Examination(access=report, bucket_identity=identity) for report in reports
        ]
        admitted = [at for at, report in enumerate(reports) if not report.policy_refusals()]
        if identity is None or not admitted:
            return found
        first, *beside = (candidates[at].object for at in admitted)
        lease = self._broker.open_for_verification(account.name, first, identity, tuple(beside))
        deadline = self._clock.now() + (row_check or self._terms.row_check)
        with held(self._broker, self._clock, lease) as holding:
            reading = _Reading(
                holding=holding,
                objects=self._open_objects(holding),
                assignment=lease,
                clock=self._clock,
                deadline=deadline,
                most_bytes=most_bytes,
            )
            for at in admitted:
                found[at] = attempt(
                    partial(reading.examined, candidates[at].object, reports[at], identity)
                )
        return found

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


def _identity_in(question: Question) -> BucketIdentity | None:
    return None if isinstance(question.metadata, NotVisible) else question.metadata.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """
    What a lease shows of the objects that it was opened for. None larger than `most_bytes` is read.
    """

    holding: Holding
    objects: LeasedObjects
    assignment: Assignment
    clock: Clock
    deadline: datetime
    most_bytes: int | None

    def examined(
        self, version: ObjectVersion, access: AccessReport, identity: BucketIdentity
    ) -> Examination:
        """
        Metadata, one byte as proof, then every row.

        Raises:
            NotFound: the generation is not there (any more).
            BetterAlone: it is larger than what is read here, or the lease is not for it: a broker
                of an earlier release opens it for the first object alone.
        """
        if version not in (self.assignment.reads, *self.assignment.reads_beside):
            raise BetterAlone(f"{version}: {self.assignment.lease} is for another object")
        blank = Examination(
            access=access, bucket_identity=identity, reads_under=self.assignment.lease
        )
        account = self.assignment.data_account
        assert account is not None
        try:
            metadata = self.objects.metadata(version)
            self.holding.found = metadata.version.generation
            unusable = _unusable(metadata)
            first = self._beginning(metadata, 1 if unusable else _FIRST_BYTES)
        except AccessDenied as error:
            refusal = read_refusal(version, data_account=account, answer=str(error))
            return replace(blank, access=access.with_findings(refusal))
        proof = read_proof(metadata.version, data_account=account, num_bytes=len(first))
        seen = replace(blank, access=access.with_findings(proof), metadata=metadata)
        if unusable:
            return replace(seen, unusable=unusable)
        rows = check_rows(
            _chunks(first, self.objects, metadata, self.holding),
            is_out_of_time=lambda: self.clock.now() >= self.deadline,
        )
        return replace(seen, rows=rows)

    def _beginning(self, metadata: ObjectMetadata, num_bytes: int) -> bytes:
        if self.most_bytes is not None and metadata.size_bytes > self.most_bytes:
            raise BetterAlone(f"{metadata.version}: {metadata.size_bytes} bytes take a while")
        wanted = min(num_bytes, metadata.size_bytes)
        first = self.objects.read(metadata.version, 0, wanted) if wanted else b""
        self.holding.bytes_read += len(first)
        return first


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
