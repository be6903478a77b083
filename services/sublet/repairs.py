"""
What a sweep looks at, from the records and from the cloud's reality, and how each thing that it
finds amiss is mended. Looking changes nothing; a repair may be made twice, and by two sweeps at a
time.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sublet.errors import Conflict, FailedPrecondition, LostRace
from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import LIVING, UNPROVED, Lease, LeaseState, Purpose
from sublet.names import JobName
from sublet.outbox import Outbox, account_of
from sublet.ports import (
    LIVING_EXECUTIONS,
    Clock,
    DeadLetter,
    DeadLetters,
    Execution,
    ExecutionState,
    Query,
    R,
    Registry,
    Runner,
    Stored,
)
from sublet.quarantine import quarantine
from sublet.revocation import Revocation
from sublet.training_runs import last_sign_of_a_holder

_PAGE: Final = 1000
_LETTERS: Final = 100
_CAN_WAIT: Final = (
    JobState.CREATING,
    JobState.PENDING,
    JobState.RUNNING,
    JobState.WRITING_RESULTS,
)
_ENDED: Final = frozenset(
    {ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """
    One thing to mend. `mend` says whether it did; somebody else may have, or it takes more tries.
    """

    kind: str
    subject: str
    because: str
    mend: Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One thing to look at: whose it is, its place among theirs, and what looking at it finds."""

    account: str
    place: str
    examine: Callable[[], Iterable[Repair]]


def every(
    registry: Registry, kind: type[R], where: Mapping[str, str] | None = None
) -> Iterator[Stored[R]]:
    """All records that match, page by page, oldest first."""
    query = Query(where=where or {}, limit=_PAGE)
    while True:
        page = registry.find(kind, query)
        yield from page
        if len(page) < _PAGE:
            return
        last = page[-1].record
        query = replace(query, after=(last.index()["created_at"], last.key))


class UnpublishedFacts:
    """Facts that a crash left between their commit and their announcement."""

    def __init__(
        self, registry: Registry, outbox: Outbox, clock: Clock, *, older_than: timedelta
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._clock = clock
        self._older_than = older_than

    def rows(self) -> Iterator[Row]:
        entries = self._registry.outbox(committed_before=self._clock.now() - self._older_than)
        for number, entry in enumerate(entries):
            repair = Repair(
                kind="fact published",
                subject=entry.fact.subject,
                because=f"{entry.fact.type} of {entry.committed_at:%H:%M:%SZ} was not announced",
                mend=partial(self._outbox.publish_one, entry),
            )
            place = f"2 {number:06d}"
            yield Row(account=account_of(entry.fact), place=place, examine=partial(_just, repair))


def _just(repair: Repair) -> list[Repair]:
    return [repair]


class UnfinishedLeases:
    """Leases that nobody will end, and those whose end is not proved yet."""

    def __init__(
        self,
        *,
        registry: Registry,
        outbox: Outbox,
        revocation: Revocation,
        runner: Runner,
        clock: Clock,
        lost_after: timedelta,
        silent_trainer: timedelta,
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._revocation = revocation
        self._runner = runner
        self._clock = clock
        self._lost_after = lost_after
        self._silent_trainer = silent_trainer

    def rows(self) -> Iterator[Row]:
        for state in (*sorted(LIVING), *sorted(UNPROVED)):
            for stored in every(self._registry, Lease, {"state": state}):
                name = stored.record.name
                examine = partial(self._examine, stored.record)
                yield Row(account=name.account, place=f"1 {name}", examine=examine)
        for stored in every(self._registry, Lease, {"owes_receipt": "True"}):
            lease = stored.record
            repair = Repair(
                kind="receipt delivered",
                subject=lease.name,
                because="its end is proved and its owner has no receipt",
                mend=partial(self._deliver, lease),
            )
            place = f"1 {lease.name}"
            yield Row(account=lease.name.account, place=place, examine=partial(_just, repair))

    def _examine(self, listed: Lease) -> Iterator[Repair]:
        """Looks again: its holder may have been heard of since it was listed."""
        stored = self._registry.get(Lease, listed.name)
        if stored is None:
            return
        lease = stored.record
        if lease.state in UNPROVED:
            yield Repair(
                kind="end proved",
                subject=lease.name,
                because=lease.revoked_because,
                mend=partial(self._prove_end, lease),
            )
        elif lease.is_living and (over := self._over(lease)):
            yield over

    def _deliver(self, lease: Lease) -> bool:
        self._attempt(lease, lease.revoked_because)
        stored = self._registry.get(Lease, lease.name)
        return stored is not None and not stored.record.owes_receipt

    def _prove_end(self, lease: Lease) -> bool:
        return self._attempt(lease, lease.revoked_because).state is LeaseState.REVOKED

    def _end(self, lease: Lease, because: str, silent_since: datetime | None) -> bool:
        """The access first; then the container, which has nothing to do without it."""
        try:
            self._attempt(lease, because, silent_since)
        except Conflict:
            return False  # we stood still, and a holder came back
        job = self._registry.get(Job, lease.job) if lease.job else None
        if job and job.record.execution:
            self._runner.cancel(job.record.execution)
        return True

    def _continue(self, stored: Stored[Job], checkpoint: str) -> bool:
        """
        Another execution goes on where one that is spent (its time limit, all its tries) has left a
        checkpoint beyond the one it began with, under the same lease and its end.
        """
        now = self._clock.now()
        job = stored.record.continued(resume_from=checkpoint, now=now)
        request = TrainingRequested(job=job.name, requested_at=now)
        try:
            entries = self._registry.commit(stored.replaced_by(job), announcing=[request])
        except LostRace:
            return False
        self._outbox.publish(entries)
        return True

    def _attempt(self, lease: Lease, because: str, silent_since: datetime | None = None) -> Lease:
        now = self._revocation.attempt(lease.name, because=because, silent_since=silent_since)
        if now.state is LeaseState.FAILED and now.last_probe:
            raise FailedPrecondition(f"{lease.name} could not be ended: {now.last_probe.answers}")
        return now

    def _over(self, lease: Lease) -> Repair | None:
        now = self._clock.now()
        if now >= lease.expires_at:
            return self._ending(lease, f"it expired at {lease.expires_at:%Y-%m-%dT%H:%M:%SZ}")
        silence = now - lease.last_heard_of
        if silence <= self._lost_after:
            return None
        if lease.purpose is Purpose.VERIFICATION or lease.job is None:
            because = f"its holder has been silent for {silence.total_seconds():.0f} s"
            return self._ending(lease, because, silent_since=lease.last_heard_of)
        return self._training_over(lease, lease.job)

    def _training_over(self, lease: Lease, name: JobName) -> Repair | None:
        stored = self._registry.get(Job, name)
        if stored is None or stored.record.is_over:
            return self._ending(lease, "its job is over")
        if not stored.record.execution:
            return None
        execution = self._runner.look_up(stored.record.execution)
        if execution.state in _ENDED:
            return self._execution_over(lease, stored, execution)
        silent_since = last_sign_of_a_holder(lease, stored.record)
        silence = self._clock.now() - silent_since
        if silence > self._silent_trainer and execution.state is not ExecutionState.WAITING:
            because = f"its trainer has been silent for {silence.total_seconds():.0f} s"
            return self._ending(lease, because, silent_since=silent_since)
        return None

    def _execution_over(self, lease: Lease, job: Stored[Job], execution: Execution) -> Repair:
        """How far it came is looked up once it is over: until then it may have come further."""
        because = (
            f"execution {execution.name} is {execution.state} and its trainer never reported: "
            f"{execution.message or 'no reason given'}"
        )
        newest = self._registry.get(Lease, lease.name)
        checkpoint = newest.record.checkpoint if newest else ""
        is_further = checkpoint not in ("", job.record.resume_from)
        if execution.state is not ExecutionState.FAILED or not is_further:
            silent_since = last_sign_of_a_holder(lease, job.record)
            return self._ending(lease, because, silent_since=silent_since)
        return Repair(
            kind="training continued",
            subject=lease.name,
            because=because,
            mend=partial(self._continue, job, checkpoint),
        )

    def _ending(
        self, lease: Lease, because: str, *, silent_since: datetime | None = None
    ) -> Repair:
        return Repair(
            kind="lease ended",
            subject=lease.name,
            because=because,
            mend=partial(self._end, lease, because, silent_since),
        )


class UnstartedJobs:
    """
    Jobs that wait for a container, be it their first or another to go on in; each is asked for
    again, after pauses that double.
    """

    def __init__(
        self, registry: Registry, outbox: Outbox, clock: Clock, *, first_pause: timedelta
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._clock = clock
        self._first_pause = first_pause

    def rows(self) -> Iterator[Row]:
        for state in _CAN_WAIT:
            for stored in every(self._registry, Job, {"state": state}):
                name, examine = stored.record.name, partial(self._examine, stored)
                yield Row(account=name.account, place=f"3 {name}", examine=examine)

    def _examine(self, stored: Stored[Job]) -> Iterator[Repair]:
        job = stored.record
        waited = self._clock.now() - (job.requested_at or job.created_at)
        if not job.execution and waited > self._first_pause * 2**job.num_repeats:
            yield Repair(
                kind="training requested again",
                subject=job.name,
                because=f"nothing has started it for {waited.total_seconds():.0f} s",
                mend=partial(self._request_again, stored),
            )

    def _request_again(self, stored: Stored[Job]) -> bool:
        now = self._clock.now()
        request = TrainingRequested(job=stored.record.name, requested_at=now)
        try:
            entries = self._registry.commit(
                stored.replaced_by(stored.record.requested_again(now)), announcing=[request]
            )
        except LostRace:
            return False
        self._outbox.publish(entries)
        return True


class StrayExecutions:
    """Containers that run for no living lease, or beside the one that holds it."""

    def __init__(
        self, registry: Registry, runner: Runner, clock: Clock, *, older_than: timedelta
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._clock = clock
        self._older_than = older_than

    def rows(self) -> Iterator[Row]:
        horizon = self._clock.now() - self._older_than
        for execution in self._runner.running():
            if execution.started_at and execution.started_at < horizon:
                account = execution.lease.account if execution.lease else ""
                examine = partial(self._examine, execution)
                yield Row(account=account, place=f"4 {execution.name}", examine=examine)

    def _examine(self, execution: Execution) -> Iterator[Repair]:
        """Looks again: it may have been cancelled with its lease since it was listed."""
        because = self._why_stray(execution)
        if because and self._runner.look_up(execution.name).state in LIVING_EXECUTIONS:
            yield Repair(
                kind="stray execution cancelled",
                subject=execution.name,
                because=because,
                mend=partial(self._cancel, execution),
            )

    def _cancel(self, execution: Execution) -> bool:
        self._runner.cancel(execution.name)
        return True

    def _why_stray(self, execution: Execution) -> str:
        stored = self._registry.get(Lease, execution.lease) if execution.lease else None
        if stored is None:
            return "no lease of ours is what it was started for"
        lease = stored.record
        if not lease.is_living:
            return f"{lease.name} is {lease.state}"
        if self._is_awaited(execution.name, lease):
            return ""
        if lease.holder and lease.holder.execution != execution.name:
            return f"{lease.name} is held by {lease.holder.execution}"
        return ""

    def _is_awaited(self, execution: str, lease: Lease) -> bool:
        """Whether the training is to go on in it, though the one before was the last to claim."""
        job = self._registry.get(Job, lease.job) if lease.job else None
        return job is not None and job.record.execution == execution


class UndeliveredMessages:
    """
    What the broker gave up delivering: quarantined by the subscription that it was for. What it
    asked for is found out from the records. A crash after the counting counts it once more.
    """

    def __init__(self, dead_letters: DeadLetters, registry: Registry, clock: Clock) -> None:
        self._dead_letters = dead_letters
        self._registry = registry
        self._clock = clock

    def rows(self) -> Iterator[Row]:
        for letter in self._dead_letters.pull(limit=_LETTERS):
            repair = Repair(
                kind="dead letter quarantined",
                subject=letter.subscription,
                because=f"given up after {letter.num_deliveries} deliveries",
                mend=partial(self._quarantine, letter),
            )
            yield Row(account="", place=f"6 {letter.id}", examine=partial(_just, repair))

    def _quarantine(self, letter: DeadLetter) -> bool:
        quarantine(
            self._registry,
            self._clock,
            unit=letter.subscription,
            kind="undelivered",
            reason=f"given up after {letter.num_deliveries} deliveries",
            body=letter.body,
        )
        self._dead_letters.acknowledge(letter)
        return True
