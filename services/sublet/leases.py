"""
Leases: one job's right to read one object generation and write one prefix, for a time.

    PENDING --claim--> ACTIVE --finish, expiry, cancel--> REVOKING --probe refused--> REVOKED
                                                             +----six failed tries--> FAILED

The transitions are pure; whoever applies one commits the result by compare-and-set. Access is kept
by renewing and lost by doing nothing. Only a refused probe (or no token ever minted) makes a lease
REVOKED.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Final, Self

from sublet.buckets import BucketIdentity
from sublet.errors import Conflict, FailedPrecondition, TryAgain
from sublet.names import AccountName, Email, JobName, LeaseName, ObjectVersion, OutputPrefix

TOKENS_KEPT: Final = 8
MOST_READ_TOGETHER: Final = 8
"""By one lease for verification; a token's boundary has room for ten rules."""
LONGEST_TOKEN: Final = timedelta(hours=1)
"""Google's limit, unless an organisation's policy lifts it."""


class LeaseState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    REVOKING = "REVOKING"
    REVOKED = "REVOKED"
    FAILED = "FAILED"


LIVING: Final = frozenset({LeaseState.PENDING, LeaseState.ACTIVE})
UNPROVED: Final = frozenset({LeaseState.REVOKING, LeaseState.FAILED})
"""Over, and not yet seen to be: a FAILED one calls for a person, and is tried ever more rarely."""


class Purpose(StrEnum):
    VERIFICATION = "VERIFICATION"
    """The registration's own reads: the one-byte proof and the row check, of a few at once."""
    TRAINING = "TRAINING"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """
    Every duration that bounds access, of which the worst case of each crash is a sum; and who
    training leases are for.
    """

    token_ttl: timedelta = timedelta(minutes=5)
    verification_token_ttl: timedelta = timedelta(minutes=1)
    training_limit: timedelta = timedelta(hours=12)
    verification_limit: timedelta = timedelta(minutes=15)
    heartbeat_every: timedelta = timedelta(seconds=10)
    holder_is_lost_after: timedelta = timedelta(minutes=1)
    clock_skew: timedelta = timedelta(seconds=10)
    sweep_every: timedelta = timedelta(minutes=1)
    max_probes: int = 6
    first_probe_pause: timedelta = timedelta(seconds=10)
    trainer_image: str = ""
    """By digest, where the deployment names it so; printed in receipts, decides nothing."""

    def ttl_of(self, purpose: Purpose) -> timedelta:
        return self.token_ttl if purpose is Purpose.TRAINING else self.verification_token_ttl

    def limit_of(self, purpose: Purpose) -> timedelta:
        return self.training_limit if purpose is Purpose.TRAINING else self.verification_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """
    Who claimed the lease: `execution` is the Cloud Run execution, or the request that verifies.
    """

    identity: Email
    execution: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedToken:
    """A token by its hash: enough to recognise it in an audit log, useless to open anything."""

    sha256: str
    minted_at: datetime
    dies_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """
    One try of the last token. `answers` are what Cloud Storage said, in words and status codes.
    `is_dead` where they are all 401: it is the token that is refused, whatever is granted.
    """

    at: datetime
    is_refused: bool
    answers: str
    is_dead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    `epoch` fences: every claim and every end raises it, and a renewal must name the current one.
    `reads_beside` lie in the same bucket: the tensors that a training starts from, and what it is
    evaluated on; or what a verification examines together with the first. `dies_at` is the end of
    the longest-lived token ever minted under the lease, written before the minting. `sealed_token`
    is the newest token, readable by the broker alone, for the probe.

    `sealed_upload` is where the receipt will be put, opened while the lease lived: it can write
    that one new object, `receipt_object`, and nothing else.
    """

    name: LeaseName
    purpose: Purpose
    job: JobName | None
    reads: ObjectVersion
    reads_beside: tuple[ObjectVersion, ...] = ()
    writes: OutputPrefix | None
    bucket_identity: BucketIdentity
    data_account: Email
    state: LeaseState = LeaseState.PENDING
    epoch: int = 0
    holder: Holder | None = None
    tokens: tuple[MintedToken, ...] = ()
    num_tokens: int = 0
    sealed_token: str = ""
    dies_at: datetime | None = None
    bytes_read: int = 0
    bytes_read_before: int = 0
    checkpoint: str = ""
    image: str = ""
    created_at: datetime
    expires_at: datetime
    claimed_at: datetime | None = None
    heartbeat_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_because: str = ""
    ended_at: datetime | None = None
    num_probes: int = 0
    last_probe: Probe | None = None
    sealed_upload: str = ""
    receipt_object: str = ""
    always_on: bool = False
    """Whether its data account stayed lit when it ended, so that only age could end its tokens."""

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        """`attention` orders by time, but puts whatever calls for a person after all else."""
        failed = self.state is LeaseState.FAILED
        return {
            "account": self.name.account,
            "state": self.state,
            "job": self.job or "",
            "owes_receipt": str(self.owes_receipt),
            "attention": f"{failed:d} {self.created_at.isoformat()}",
            "created_at": self.created_at.isoformat(),
        }

    @property
    def owes_receipt(self) -> bool:
        return self.state is LeaseState.REVOKED and self.sealed_upload != ""

    @property
    def is_living(self) -> bool:
        return self.state in LIVING

    @property
    def last_heard_of(self) -> datetime:
        return self.heartbeat_at or self.created_at

    def claimed(self, holder: Holder, *, now: datetime, lost_after: timedelta) -> Self:
        """
        Give the lease to `holder`, unless somebody else holds it and is alive.

        A later attempt of the same execution takes over from the earlier one; another execution
        does only when the holder has been silent for `lost_after`. The epoch fences whoever held
        it.

        Raises:
            Conflict: a living holder has it.
            FailedPrecondition: the lease has ended or expired.
        """
        self._check_living(now)
        if self.holder and self.holder != holder and not self._gives_way(holder, now, lost_after):
            raise Conflict(
                f"{self.name} is held by {self.holder.execution} attempt {self.holder.attempt}, "
                f"last heard of at {self.heartbeat_at:%H:%M:%SZ}"
            )
        return replace(
            self,
            state=LeaseState.ACTIVE,
            epoch=self.epoch + 1,
            holder=holder,
            claimed_at=self.claimed_at or now,
            heartbeat_at=now,
            bytes_read_before=self.bytes_read,
        )

    def renewed(self, epoch: int, *, bytes_read: int, now: datetime) -> Self:
        """
        Record a heartbeat of the holder; `bytes_read` counts since its own claim.

        Raises:
            Conflict: another holder has taken over, or the lease was ended: stop at once.
            FailedPrecondition: the lease has expired.
        """
        self._check_epoch(epoch)
        self._check_living(now)
        total = max(self.bytes_read, self.bytes_read_before + bytes_read)
        return replace(self, heartbeat_at=now, bytes_read=total)

    def about_to_mint(self, *, dies_at: datetime) -> Self:
        """Write down the latest end of a token before it exists, so that a crash cannot hide it."""
        latest = max(filter(None, (self.dies_at, dies_at)))
        return replace(self, dies_at=latest, num_tokens=self.num_tokens + 1)

    def minted(self, token: MintedToken, *, sealed: str) -> Self:
        """
        Nobody has the token before this is committed, so a late one can still raise the end. The
        one that is kept to be tried is the one that lives longest, in whatever order they come.
        """
        tokens = sorted((*self.tokens, token), key=lambda minted: minted.dies_at)
        return replace(
            self,
            tokens=tuple(tokens[-TOKENS_KEPT:]),
            sealed_token=sealed if tokens[-1] is token else self.sealed_token,
            dies_at=max(filter(None, (self.dies_at, token.dies_at))),
        )

    def revoking(
        self, *, now: datetime, because: str, always_on: bool = False, epoch: int | None = None
    ) -> Self:
        """
        Stop minting, for good. Doing it twice changes nothing.

        Args:
            epoch: that of the holder, where it is a holder who ends the lease.

        Raises:
            Conflict: another holder has taken over from that one, which has no say any more.
        """
        if not self.is_living:
            return self
        if epoch is not None:
            self._check_epoch(epoch)
        return replace(
            self,
            state=LeaseState.REVOKING,
            epoch=self.epoch + 1,
            revoked_at=now,
            revoked_because=because,
            always_on=always_on,
        )

    def probed(self, probe: Probe, *, counts: bool, max_probes: int) -> Self:
        """
        Record a try of the last token: refused ends the lease, `max_probes` failed ones call a
        person. A lease that FAILED stays so until a try is refused.

        Args:
            counts: False where the token is known to be alive still, because another lease keeps
                its data account enabled; such a try proves nothing and blames nobody.
        """
        num_probes = self.num_probes + (counts and not probe.is_refused)
        state = (
            LeaseState.REVOKED
            if probe.is_refused
            else LeaseState.FAILED
            if num_probes >= max_probes
            else LeaseState.REVOKING
        )
        over = state is not LeaseState.REVOKING
        return replace(
            self,
            state=state,
            num_probes=num_probes,
            last_probe=probe,
            ended_at=probe.at if over else None,
            sealed_token="" if state is LeaseState.REVOKED else self.sealed_token,
        )

    def _gives_way(self, holder: Holder, now: datetime, lost_after: timedelta) -> bool:
        assert self.holder is not None
        is_next_attempt = (
            holder.execution == self.holder.execution and holder.attempt > self.holder.attempt
        )
        is_lost = self.heartbeat_at is not None and now - self.heartbeat_at > lost_after
        return is_next_attempt or is_lost

    def _check_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            raise Conflict(
                f"{self.name} is at epoch {self.epoch} ({self.state}); got {epoch}: stop"
            )

    def _check_living(self, now: datetime) -> None:
        if not self.is_living:
            raise FailedPrecondition(f"{self.name} is {self.state}: {self.revoked_because}")
        if now >= self.expires_at:
            raise FailedPrecondition(f"{self.name} expired at {self.expires_at:%Y-%m-%dT%H:%M:%SZ}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataAccount:
    """
    A service account that customers grant, dark unless a living lease uses it, or the next one may
    have to: `kept_lit` says that its last lease was a verification's, and that no other account of
    its pool could serve the next.

    Disabling it refuses its living tokens; enabling it would revive those of ended leases. So it
    may be enabled again only after `tokens_die_at`, by when every token of an ended lease has died
    of age. One that is `always_on` is never disabled: a lease starts at once, and the age of its
    tokens is what bounds it. One that became so while it was dark stays dark until `dark_until`.
    """

    email: Email
    account: AccountName
    holders: tuple[LeaseName, ...] = ()
    kept_lit: bool = False
    tokens_die_at: datetime | None = None
    always_on: bool = False
    dark_until: datetime | None = None

    @staticmethod
    def key_of(email: Email) -> str:
        return f"dataAccounts/{email}"

    @property
    def key(self) -> str:
        return self.key_of(self.email)

    def index(self) -> Mapping[str, str]:
        return {"account": self.account}

    def taken_by(self, lease: LeaseName) -> Self:
        if lease in self.holders:
            return self
        return replace(self, holders=(*self.holders, lease), kept_lit=False)

    def left_by(self, lease: Lease) -> Self:
        ends = filter(None, (self.tokens_die_at, lease.dies_at))
        remaining = tuple(holder for holder in self.holders if holder != lease.name)
        return replace(self, holders=remaining, tokens_die_at=max(ends, default=None))

    def without(self, gone: Collection[LeaseName], *, now: datetime) -> Self:
        """
        Without holders that there is no record of. When their tokens die is lost with them, so the
        longest life that Google gives any token is assumed.
        """
        if not gone:
            return self
        ends = filter(None, (self.tokens_die_at, now + LONGEST_TOKEN))
        remaining = tuple(holder for holder in self.holders if holder not in gone)
        return replace(self, holders=remaining, tokens_die_at=max(ends))

    def kept_on(self, always_on: bool, *, now: datetime) -> Self:
        """The account under another setting; no token of an ended lease is revived by it."""
        if always_on == self.always_on:
            return self
        dark_until = None if not always_on or self.is_safe_to_enable(now) else self.tokens_die_at
        return replace(self, always_on=always_on, dark_until=dark_until, kept_lit=False)

    def stays_lit(self, now: datetime) -> bool:
        """Whether it is lit even if no lease uses it."""
        return self.always_on and (self.dark_until is None or self.dark_until <= now)

    def is_lit(self, now: datetime) -> bool:
        return bool(self.holders) or self.kept_lit or self.stays_lit(now)

    def is_safe_to_enable(self, now: datetime) -> bool:
        """
        True if enabling it revives nothing; one that is enabled already has nothing to revive.
        """
        return self.is_lit(now) or self.tokens_die_at is None or self.tokens_die_at <= now


def rests_whole(pool: Sequence[DataAccount], now: datetime) -> bool:
    """Whether every account is dark, with tokens that enabling would revive: a lease must wait."""
    return not any(account.is_safe_to_enable(now) for account in pool)


def choose_data_account(pool: Sequence[DataAccount], now: datetime) -> DataAccount:
    """
    The account that a new lease should use: a dark one, so long as another is left in reserve; else
    the one that is shared most already.

    A dark account ends with its only lease, so the end can be proved at once, and rests until its
    last token has died. In a burst that would put all of them to rest; so one is shared by all,
    each of whose leases ends when its token is refused; it goes dark with the last of them, if
    another account could serve.

    Raises:
        TryAgain: every account is dark with tokens that enabling would revive; says from when on.
    """
    if not pool:
        raise FailedPrecondition(
            "the account has no data service account; an operator must make one"
        )
    lit = [account for account in pool if account.is_lit(now)]
    dark = [one for one in pool if not one.is_lit(now) and one.is_safe_to_enable(now)]
    if dark and (len(dark) > 1 or not lit):
        return min(dark, key=attrgetter("email"))
    if lit:
        return min(lit, key=lambda account: (-len(account.holders), account.email))
    earliest = min(account.tokens_die_at for account in pool if account.tokens_die_at)
    raise TryAgain(
        f"each data account of {pool[0].account} rests until its last token has died; the first "
        f"of {len(pool)} is free at {earliest:%H:%M:%SZ}",
        after=earliest - now,
    )
