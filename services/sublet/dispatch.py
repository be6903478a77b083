"""
Dispatch: a requested training gets a lease, then an execution, in that order. No cloud takes an
idempotency key for that, so a repeat looks for the execution of its lease first; where two are
started all the same, only one can claim the lease, the other leaves without having read a byte.
"""

from dataclasses import replace

from sublet.datasets import OK, Status
from sublet.errors import FailedPrecondition, LostRace, SubletError
from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.names import LeaseName
from sublet.ports import LeaseBroker, Registry, Runner
from sublet.training_runs import Outcome, TrainingRuns


class Dispatch:
    def __init__(
        self, registry: Registry, broker: LeaseBroker, runner: Runner, runs: TrainingRuns
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._runner = runner
        self._runs = runs

    def handle(self, request: TrainingRequested) -> None:
        """
        Start the job that a request names, unless it runs, ran, or was deleted. One that has been
        running goes on under the lease that it has, in another execution.

        Raises:
            TryAgain: no data account is free yet, or Cloud Run is busy; the request comes again.
        """
        stored = self._registry.get(Job, request.job)
        if stored is None or stored.record.is_over:
            return
        if stored.record.execution:
            return
        try:
            self._start(stored.record)
        except SubletError as error:
            if error.retry:
                self._tell_why_it_waits(stored.record, str(error))
                raise
            status = Status(code=error.reason, message=f"could not be started: {error}")
            self._runs.end(request.job, Outcome(state=JobState.FAILED, status=status))

    def _tell_why_it_waits(self, job: Job, why: str) -> None:
        """In the job's own status, which says OK: to wait is no fault of a job."""
        waiting = Status(code=OK.code, message=f"waiting: {why}")
        while True:
            stored = self._registry.get(Job, job.name)
            if stored is None or stored.record.lease or stored.record.is_over:
                return
            if stored.record.status == waiting:
                return
            try:
                self._registry.commit(stored.replaced_by(replace(stored.record, status=waiting)))
            except LostRace:
                continue
            return

    def _start(self, job: Job) -> None:
        try:
            lease = self._broker.open_for_training(job.name)
        except FailedPrecondition:
            return  # cancelled or ended since it was read
        execution = self._runner.start(job.name, lease.name, job.machine)
        while True:
            stored = self._registry.get(Job, job.name)
            if stored is None or not _waits_for(lease.name, job.resume_from, stored.record):
                return
            started = stored.record.advanced_to(stored.record.state, execution=execution)
            try:
                self._registry.commit(stored.replaced_by(started))
            except LostRace:
                continue
            return


def _waits_for(lease: LeaseName, resume_from: str, job: Job) -> bool:
    """
    Whether an execution is still that job's next. One that was started before the job was resumed,
    or went on in another, would hide that nothing runs for it.
    """
    is_same_start = (job.lease, job.resume_from) == (lease, resume_from)
    return is_same_start and not job.is_over and not job.execution
