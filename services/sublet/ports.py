"""
What the use cases need of the world, as protocols. Adapters (gcp, sqlite, memory) stand behind them
and pass one contract suite; the simulation stands behind them too. A port raises sublet's errors,
no others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar

from sublet.buckets import BucketIdentity, BucketMetadata, FolderPolicy, NotVisible, Policy
from sublet.datasets import ListedObject, ObjectMetadata
from sublet.events import Fact
from sublet.handover import AccessToken, Assignment, Claim, Ending, Heartbeat, Renewal
from sublet.leases import Lease, Probe
from sublet.machines import Machine
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion, OutputPrefix


class Clock(Protocol):
    def now(self) -> datetime:
        """Aware UTC. The only source of time: a test moves it, and everything follows."""
        ...


# --- registry -------------------------------------------------------------------------------------


class Record(Protocol):
    """
    A frozen dataclass that can be kept: `key` names it among its kind, `index` is what queries see.
    """

    @property
    def key(self) -> str: ...

    def index(self) -> Mapping[str, str]: ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A record as it was read; a change to it must still find `version`."""

    record: R
    version: int

    def replaced_by(self, record: R) -> "Write":
        return Write(record, replaces=self)

    def deleted(self) -> "Write":
        return Write(self.record, replaces=self, deletes=True)


@dataclass(frozen=True, slots=True)
class Write:
    """Put (or delete) `record` if its kind and key are found as they were read; or not at all."""

    record: Record
    replaces: Stored[Any] | None = None
    deletes: bool = False

    @property
    def expects(self) -> int:
        """The version that must be found; 0 is: not there."""
        return self.replaces.version if self.replaces else 0


def create(record: Record) -> Write:
    return Write(record)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    `where` fields must be equal, `order_by` is a field of the index; ties fall to the key.

    `after` is the (field value, key) of the last record of the page before.
    """

    where: Mapping[str, str] = field(default_factory=dict)
    order_by: str = "created_at"
    descending: bool = False
    limit: int = 1000
    after: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """
    A fact that was committed with the state it announces, and is not known to be published yet.
    """

    id: str
    fact: Fact
    committed_at: datetime


class Registry(Protocol):
    """Documents with versions. Every method sees all commits that ended before it began."""

    def get(self, kind: type[R], key: str) -> Stored[R] | None: ...

    def find(self, kind: type[R], query: Query) -> list[Stored[R]]: ...

    def count(self, kind: type[R], query: Query) -> int:
        """How many `find` would give if the query had no limit."""
        ...

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        """
        Apply every write and keep every fact, or nothing at all.

        Raises:
            LostRace: a write did not find the version it expects; nothing was written.
        """
        ...

    def outbox(self, *, committed_before: datetime, limit: int = 1000) -> list[OutboxEntry]:
        """Facts not yet published, oldest first."""
        ...

    def mark_published(self, entries: Sequence[OutboxEntry]) -> None: ...


class Publisher(Protocol):
    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        """
        Return when the broker has all of them; the same entry may be published twice (same event
        id).

        Raises:
            TryAgain: the broker is out of reach; it may have some of them.
        """
        ...


# --- the customer's bucket ------------------------------------------------------------------------


class BucketInspector(Protocol):
    """Reads a bucket's metadata and policy as the one principal that customers grant for it."""

    def metadata(self, bucket: str) -> BucketMetadata | NotVisible: ...

    def policy(self, bucket: str) -> Policy | NotVisible:
        """At version 3, always."""
        ...

    def managed_folders(self, bucket: str) -> tuple[FolderPolicy, ...] | NotVisible:
        """Those that have a policy of their own; at version 3."""
        ...

    def permissions_of(self, custom_role: str) -> frozenset[str] | NotVisible: ...


class TokenSource(Protocol):
    def token(self) -> AccessToken:
        """A token that lives a while yet, renewed under the lease where needed."""
        ...


class LeasedObjects(Protocol):
    """Reads one object generation with the tokens of a lease."""

    def metadata(self, version: ObjectVersion) -> ObjectMetadata:
        """
        What is stored of that generation, or of the live one if none is named.

        Raises:
            NotFound: that generation is not there (any more).
            AccessDenied: the token is refused.
        """
        ...

    def list_folder(
        self, folder: ObjectVersion, *, after: str = "", limit: int
    ) -> list[ListedObject]:
        """
        The live objects under a folder in order of name, subfolders' included: at most `limit` of
        those whose names come after `after`.

        Raises:
            AccessDenied: the token is refused.
        """
        ...

    def read(self, version: ObjectVersion, start: int, end: int) -> bytes:
        """
        Bytes `start` to `end` (exclusive) as stored, nothing decoded. Raises as `metadata` does.
        """
        ...


class OpensLeasedObjects(Protocol):
    def __call__(self, tokens: TokenSource) -> LeasedObjects: ...


# --- credentials (the broker's alone) -------------------------------------------------------------


class TokenMint(Protocol):
    def mint(
        self,
        data_account: Email,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
        ttl: timedelta,
    ) -> AccessToken:
        """
        A token of the data account, cut down to that object, those beside it and that prefix.

        Raises:
            TryAgain: the account is not enabled yet, or Google is busy.
            AccessDenied: the broker may not impersonate the account.
        """
        ...


class DataAccountSwitch(Protocol):
    def set_enabled(self, data_account: Email, *, enabled: bool) -> None:
        """
        Idempotent. Disabling refuses living tokens; enabling revives them.

        Raises:
            NotFound: there is no such account.
            AccessDenied: the broker may not; nothing has changed.
        """
        ...

    def is_enabled(self, data_account: Email) -> bool:
        """
        Raises:
            NotFound: there is no such account.
        """
        ...


class TokenProbe(Protocol):
    def probe(
        self,
        token: str,
        *,
        reads: ObjectVersion,
        beside: tuple[ObjectVersion, ...] = (),
        writes: OutputPrefix | None,
    ) -> Probe:
        """Try everything the token was for, reading no byte and leaving nothing behind."""
        ...


class OneUpload(Protocol):
    """The right to write one new object, which outlives the token that it was opened with."""

    def open(self, token: str, *, bucket: str, name: str) -> str:
        """
        Returns:
            The upload's address: whoever has it may finish the upload, once, within a week.
        """
        ...

    def put(self, address: str, data: bytes) -> None:
        """
        Finish the upload; a second time changes nothing.

        Raises:
            NotFound: the address is no more.
            TryAgain: Cloud Storage is busy.
        """
        ...


class Signer(Protocol):
    """Ed25519 with the deployment's own key."""

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes: ...


class Seal(Protocol):
    """Encryption with a key that only the broker has."""

    def seal(self, secret: str) -> str: ...

    def unseal(self, sealed: str) -> str: ...


# --- the broker, as the other parts see it --------------------------------------------------------


class LeaseBroker(Protocol):
    """Every method may be repeated: the second time finds what the first one did."""

    def open_for_training(self, job: JobName) -> Lease:
        """
        Raises:
            TryAgain: no data account can be lit yet without reviving a token.
            FailedPrecondition: the job is over.
        """
        ...

    def open_for_verification(
        self,
        account: AccountName,
        reads: ObjectVersion,
        identity: BucketIdentity,
        reads_beside: tuple[ObjectVersion, ...] = (),
    ) -> Assignment:
        """
        A lease that the caller holds at once. Asked again, it is another one.

        Raises:
            InvalidRequest: more than MOST_READ_TOGETHER objects, or not all of one bucket.
        """
        ...

    def claim(self, lease: LeaseName, claim: Claim) -> Assignment: ...

    def renew(self, lease: LeaseName, heartbeat: Heartbeat) -> Renewal: ...

    def finish(self, lease: LeaseName, ending: Ending) -> Lease:
        """Hand a lease back; the end of one for verification is tried at once."""
        ...

    def revoke(
        self, lease: LeaseName, *, because: str, silent_since: datetime | None = None
    ) -> Lease:
        """
        Stop minting, and try once to prove the end; the answer's state says whether it is proved.

        A lease that is still REVOKING wants to be asked again.

        Args:
            silent_since: when a holder was last heard of or asked for, where that is why.

        Raises:
            Conflict: one has been heard of or asked for since.
        """
        ...

    def unsettled(self, account: AccountName) -> list[Email]:
        """Data accounts that are lit though no lease needs them, or dark though one does."""
        ...

    def settle(self, data_account: Email) -> None:
        """Light or darken it as its record says."""
        ...


# --- executions -----------------------------------------------------------------------------------


class ExecutionState(StrEnum):
    """WAITING for a machine, for the first time or again after it lost one."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"


LIVING_EXECUTIONS: Final = frozenset({ExecutionState.WAITING, ExecutionState.RUNNING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """`lease` is what its container was told to claim; None if that cannot be told."""

    name: str
    state: ExecutionState
    message: str = ""
    lease: LeaseName | None = None
    started_at: datetime | None = None


class Runner(Protocol):
    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        """
        Start a training container for the lease, or find one that was started for it and lives yet:
        after its end a training goes on in another. Two who start at a moment may still start two:
        only one of those can claim the lease.

        Returns:
            The execution's id, as the container itself finds it in CLOUD_RUN_EXECUTION.

        Raises:
            InvalidRequest: there is no such machine.
            TryAgain: the cloud is busy, or it cannot be told whether one was started.
        """
        ...

    def look_up(self, execution: str) -> Execution: ...

    def running(self) -> list[Execution]:
        """Every execution that has not ended, whoever started it."""
        ...

    def cancel(self, execution: str) -> None:
        """End it if it still runs; no error if it does not, or is unknown."""
        ...


# --- what could not be delivered ------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """
    A message that was delivered in vain until its broker gave it up. `subscription` is whose.
    """

    id: str
    subscription: str
    num_deliveries: int
    body: bytes


class DeadLetters(Protocol):
    def pull(self, *, limit: int) -> list[DeadLetter]:
        """Some that wait, at once; each comes again later unless it is acknowledged."""
        ...

    def acknowledge(self, letter: DeadLetter) -> None: ...
