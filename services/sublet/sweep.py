"""
The sweep: each minute, whatever the events missed. It looks at records and at executions, not at
messages, so it needs no memory of its own, and a second sweep of a quiet world changes nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from sublet.errors import FailedPrecondition, SubletError, TryAgain
from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import LIVING, Lease, LeaseState, LeaseTerms, Purpose
from sublet.names import JobName
from sublet.outbox import Outbox
from sublet.ports import Clock, ExecutionState, Query, Registry, Runner
from sublet.revocation import Revocation

T = TypeVar("T")

_ENDED: Final = frozenset(
    {ExecutionState.SUCCEEDED, ExecutionState.FAILED, ExecutionState.CANCELLED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTerms:
    """
    How long each part may take before the sweep does its work: events first, then the sweep.

    `silent_trainer` ends a trainer that still runs but has not been heard of for so long.
    """

    unpublished_fact: timedelta = timedelta(seconds=30)
    unstarted_job: timedelta = timedelta(minutes=1)
    silent_trainer: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What was mended, by kind, and what could not be: in steady state both are empty."""

    repairs: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


class Sweep:
    def __init__(
        self,
        *,
        registry: Registry,
        outbox: Outbox,
        revocation: Revocation,
        runner: Runner,
        clock: Clock,
        lease_terms: LeaseTerms,
        terms: SweepTerms,
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._revocation = revocation
        self._runner = runner
        self._clock = clock
        self._lease_terms = lease_terms
        self._terms = terms

    def run(self) -> SweepReport:
        """
        One pass over everything that is not over; one bad row does not keep the others waiting.
        """
        report = SweepReport()
        published = self._outbox.flush(older_than=self._terms.unpublished_fact)
        report.repairs.update({"fact published": published} if published else {})
        self._each(report, self._unfinished_leases(), self._mend_lease)
        self._each(report, self._unstarted_jobs(), self._request_again)
        return report

    def _each(self, report: SweepReport, rows: Iterable[T], mend: Callable[[T], str]) -> None:
        for row in rows:
            try:
                repair = mend(row)
            except TryAgain as error:
                repair = ""
                report.failures.append(str(error))
            except SubletError as error:
                repair = ""
                report.failures.append(f"{error.reason}: {error}")
            if repair:
                report.repairs[repair] += 1

    def _unfinished_leases(self) -> list[Lease]:
        states = (*LIVING, LeaseState.REVOKING)
        return [
            stored.record
            for state in states
            for stored in self._registry.find(Lease, Query(where={"state": state}))
        ]

    def _unstarted_jobs(self) -> list[Job]:
        horizon = self._clock.now() - self._terms.unstarted_job
        return [
            stored.record
            for state in (JobState.CREATING, JobState.PENDING)
            for stored in self._registry.find(Job, Query(where={"state": state}))
            if not stored.record.execution and stored.record.created_at < horizon
        ]

    def _mend_lease(self, lease: Lease) -> str:
        """End a lease that nobody will end, and go on proving the end of one that has ended."""
        because = self._why_over(lease) if lease.is_living else lease.revoked_because
        if not because:
            return ""
        now = self._revocation.attempt(lease.name, because=because)
        if now.state is LeaseState.FAILED and now.last_probe:
            raise FailedPrecondition(f"{lease.name} could not be ended: {now.last_probe.answers}")
        if lease.is_living:
            return "lease ended"
        return "end proved" if now.state is LeaseState.REVOKED else ""

    def _why_over(self, lease: Lease) -> str:
        now = self._clock.now()
        if now >= lease.expires_at:
            return f"it expired at {lease.expires_at:%Y-%m-%dT%H:%M:%SZ}"
        silence = now - (lease.heartbeat_at or lease.created_at)
        if silence <= self._lease_terms.holder_is_lost_after:
            return ""
        if lease.purpose is Purpose.VERIFICATION or lease.job is None:
            return f"its holder has been silent for {silence.total_seconds():.0f} s"
        return self._why_training_over(lease.job, silence)

    def _why_training_over(self, name: JobName, silence: timedelta) -> str:
        stored = self._registry.get(Job, name)
        if stored is None or stored.record.is_over:
            return "its job is over"
        if not stored.record.execution:
            return ""
        execution = self._runner.look_up(stored.record.execution)
        if execution.state in _ENDED:
            return (
                f"execution {execution.name} is {execution.state} and its trainer never reported: "
                f"{execution.message or 'no reason given'}"
            )
        if silence > self._terms.silent_trainer:
            self._runner.cancel(execution.name)
            return f"its trainer has been silent for {silence.total_seconds():.0f} s"
        return ""

    def _request_again(self, job: Job) -> str:
        request = TrainingRequested(job=job.name, requested_at=self._clock.now())
        self._outbox.publish(self._registry.commit(announcing=[request]))
        return "training requested again"
