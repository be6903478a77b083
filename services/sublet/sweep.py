"""
The sweep: each minute, whatever the events missed. It starts from records and from the cloud, not
from messages, so it may be stopped anywhere and run twice at a time; a second sweep of a quiet
world changes nothing. Accounts take turns, a row each, so none waits behind another's thousand.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any, Final

from sublet.errors import LostRace, SubletError
from sublet.leases import LeaseTerms
from sublet.looks import Looks, OverlookedObjects, UnsettledAccounts
from sublet.outbox import Outbox
from sublet.ports import (
    Clock,
    DeadLetters,
    LeaseBroker,
    Registry,
    Runner,
    create,
)
from sublet.repairs import (
    Repair,
    Row,
    StrayExecutions,
    UndeliveredMessages,
    UnfinishedLeases,
    UnpublishedFacts,
    UnstartedJobs,
)
from sublet.revocation import Revocation
from sublet.verification import Verification

_PLACE: Final = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepTerms:
    """
    How long each part may take before the sweep does its work: events first, then the sweep.

    `silent_trainer` ends a trainer that still runs but has not been heard of for so long.
    `look_every` is how often prefixes and data accounts are looked at, which costs a lease or a
    call each. `time_budget` is less than the sweep's period.
    """

    unpublished_fact: timedelta = timedelta(seconds=30)
    unstarted_job: timedelta = timedelta(minutes=1)
    silent_trainer: timedelta = timedelta(minutes=10)
    stray_execution: timedelta = timedelta(minutes=5)
    unregistered_object: timedelta = timedelta(minutes=10)
    look_every: timedelta = timedelta(hours=1)
    time_budget: timedelta = timedelta(seconds=45)


@dataclass(slots=True, kw_only=True)
class SweepReport:
    """
    What was mended, by kind (in a dry run: what would be, and why), and what could not be. In
    steady state all of it is empty: repairs at a rate are a defect somewhere else.
    """

    is_dry_run: bool = False
    repairs: Counter[str] = field(default_factory=Counter)
    planned: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    num_left: int = 0

    def to_wire(self) -> dict[str, Any]:
        return {
            "dryRun": self.is_dry_run,
            "repairs": dict(sorted(self.repairs.items())),
            "planned": self.planned,
            "failures": self.failures,
            "rowsLeftForTheNextSweep": self.num_left,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlace:
    """Where a sweep ran out of time: the last place in each account, and whose turn was last."""

    last_account: str = ""
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return _PLACE

    def index(self) -> Mapping[str, str]:
        return {}


class Sweep:
    def __init__(
        self,
        *,
        registry: Registry,
        outbox: Outbox,
        revocation: Revocation,
        broker: LeaseBroker,
        verification: Verification,
        runner: Runner,
        dead_letters: DeadLetters,
        clock: Clock,
        lease_terms: LeaseTerms,
        terms: SweepTerms,
    ) -> None:
        self._registry = registry
        self._clock = clock
        self._terms = terms
        self._leases = UnfinishedLeases(
            registry=registry,
            outbox=outbox,
            revocation=revocation,
            runner=runner,
            clock=clock,
            lost_after=lease_terms.holder_is_lost_after,
            silent_trainer=terms.silent_trainer,
        )
        self._facts = UnpublishedFacts(registry, outbox, clock, older_than=terms.unpublished_fact)
        self._jobs = UnstartedJobs(registry, outbox, clock, first_pause=terms.unstarted_job)
        self._executions = StrayExecutions(
            registry, runner, clock, older_than=terms.stray_execution
        )
        self._letters = UndeliveredMessages(dead_letters, registry, clock)
        looks = Looks(registry, clock, every=terms.look_every)
        self._accounts = UnsettledAccounts(registry, broker, clock, looks)
        self._objects = OverlookedObjects(
            registry=registry,
            verification=verification,
            outbox=outbox,
            clock=clock,
            looks=looks,
            older_than=terms.unregistered_object,
        )

    def run(self, *, dry_run: bool = False) -> SweepReport:
        """
        Look at everything that is not over, until the time is up; the next sweep goes on from
        there. One bad row does not keep the others waiting.

        Raises:
            ExceptionGroup: defects of ours, met on the way, after everything else was tried.
        """
        report, defects = SweepReport(is_dry_run=dry_run), list[Exception]()
        deadline = self._clock.now() + self._terms.time_budget
        rows = self._rows(report, defects, dry_run=dry_run)
        stored = self._registry.get(SweepPlace, _PLACE)
        last, places = "", dict(stored.record.places) if stored else {}
        turns = in_turns(rows, stored.record if stored else SweepPlace())
        for number, row in enumerate(turns):
            if self._clock.now() >= deadline:
                report.num_left = len(rows) - number
                break
            self._look_at(row, report, defects)
            last, places[row.account] = row.account, row.place
        if not dry_run:
            self._keep(SweepPlace(last_account=last, places=places) if report.num_left else None)
        if defects:
            raise ExceptionGroup(f"the sweep met defects; {report.to_wire()}", defects)
        return report

    def _rows(self, report: SweepReport, defects: list[Exception], *, dry_run: bool) -> list[Row]:
        rows: list[Row] = []
        sources: tuple[Callable[[], Iterable[Row]], ...] = (
            self._leases.rows,
            self._facts.rows,
            self._jobs.rows,
            self._executions.rows,
            self._letters.rows,
            lambda: self._accounts.rows(dry_run=dry_run),
            lambda: self._objects.rows(dry_run=dry_run),
        )
        for source in sources:
            with _isolated(report, defects):
                rows.extend(source())
        return rows

    def _look_at(self, row: Row, report: SweepReport, defects: list[Exception]) -> None:
        with _isolated(report, defects):
            for repair in row.examine():
                with _isolated(report, defects):
                    _make(repair, report)

    def _keep(self, place: SweepPlace | None) -> None:
        """Where to go on, or nothing to go on from; another sweep's word is as good as ours."""
        stored = self._registry.get(SweepPlace, _PLACE)
        try:
            if place:
                self._registry.commit(stored.replaced_by(place) if stored else create(place))
            elif stored:
                self._registry.commit(stored.deleted())
        except LostRace:
            return


def _make(repair: Repair, report: SweepReport) -> None:
    if report.is_dry_run:
        report.planned.append(f"{repair.kind}: {repair.subject}, because {repair.because}")
    elif not repair.mend():
        return
    report.repairs[repair.kind] += 1


@contextmanager
def _isolated(report: SweepReport, defects: list[Exception]) -> Iterator[None]:
    try:
        yield
    except SubletError as error:
        report.failures.append(str(error) if error.retry else f"{error.reason}: {error}")
    except Exception as error:  # noqa: BLE001  raised by `run`, once no other row waits behind it
        defects.append(error)


def in_turns(rows: Iterable[Row], place: SweepPlace) -> Iterator[Row]:
    """A row of each account, then the next of each; every account from where it was left."""
    of_account: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.place):
        of_account[row.account].append(row)
    accounts = sorted(of_account, key=lambda account: (account <= place.last_account, account))
    queues = [
        sorted(of_account[account], key=lambda row: row.place <= place.places.get(row.account, ""))
        for account in accounts
    ]
    return (row for row in chain.from_iterable(zip_longest(*queues)) if row is not None)
