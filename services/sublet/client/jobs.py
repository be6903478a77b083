"""
Fine-tuning jobs: how far they are, and waiting for them. A job that ended badly raises, whichever
way one waits; a job that was deleted is None to `get()` and an error to `wait()`.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any, Final, Self

from sublet.client.errors import BadState, JobCancelled, JobDeleted, JobFailed, WaitTimedOut
from sublet.client.http import ApiClient
from sublet.client.resources import Model, Part, Receipt, Resource, Status, converted

POLL_EVERY_S: Final = 1.0

COMPLETED: Final = "JOB_STATE_COMPLETED"
_BAD_STATES: Final[Mapping[str, type[BadState]]] = {
    "JOB_STATE_FAILED": JobFailed,
    "JOB_STATE_FAILED_CLEANING_UP": JobFailed,
    "JOB_STATE_EXPIRED": JobFailed,
    "JOB_STATE_EXPIRED_CLEANING_UP": JobFailed,
    "JOB_STATE_CANCELLED": JobCancelled,
    "JOB_STATE_CANCELLING": JobCancelled,
    "JOB_STATE_DELETING": JobDeleted,
    "JOB_STATE_DELETING_CLEANING_UP": JobDeleted,
}
"""Whatever any server of this API calls a job that will not complete."""


class JobProgress(Part, frozen=True, kw_only=True):
    percent: int = 0
    epoch: int = 0


class Job(Resource, frozen=True, kw_only=True):
    """
    Losses are nats per supervised token: `loss` at `step`, `eval_loss` at the newest evaluation, if
    there is one. They are the trainer's last word.
    """

    display_name: str = ""
    state: str = ""
    status: Status = Status()
    dataset: str = ""
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""
    create_time: datetime | None = None
    completed_time: datetime | None = None
    job_progress: JobProgress = JobProgress()
    step: int = 0
    num_steps: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    heartbeat_age_seconds: float | None = None
    output_uri: str = ""

    @property
    def is_completed(self) -> bool:
        return self.state == COMPLETED

    def raise_if_bad_state(self) -> None:
        """
        Raises:
            BadState: it failed, was cancelled or is being deleted; the message has the cause.
        """
        if bad := _BAD_STATES.get(self.state):
            cause = f": {self.status.message}" if self.status.message else ""
            raise bad(f"{self.name} is {self.state}{cause}")

    def wait(
        self,
        *,
        progress: bool = False,
        timeout_s: float | None = None,
        poll_every_s: float = POLL_EVERY_S,
    ) -> Self:
        """
        Wait until the job is completed, and return it as it is then.

        Args:
            progress: show a bar and the loss on standard error meanwhile.

        Raises:
            BadState: it ended otherwise, or was deleted.
            WaitTimedOut: it is not over after `timeout_s`; it goes on.
        """
        give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
        job = self
        with _shown() if progress else nullcontext(_show_nothing) as show:
            show(job)
            while not job.is_completed:
                job.raise_if_bad_state()
                if give_up_at is not None and time.monotonic() >= give_up_at:
                    raise WaitTimedOut(
                        f"{job.name} is {job.state} after {timeout_s:g} s; it goes on"
                    )
                self._api.retries.sleep(poll_every_s)
                found = job.get()
                if found is None:
                    raise JobDeleted(f"{job.name} was deleted while it was waited for")
                job = found
                show(job)
        return job

    def wait_for_completion(self) -> Self:
        """As `wait`: the name that the Fireworks client has for it."""
        return self.wait()

    def cancel(self) -> None:
        """End it; a job that is over already stays as it is."""
        self._api.do(self.collection, self.name, ":cancel", is_idempotent=True)

    def resume(self) -> Self:
        """
        Go on with a job that failed or was cancelled, from its last checkpoint.

        Raises:
            FailedPrecondition: it did neither.
        """
        return self.read(self._api, self._api.do(self.collection, self.name, ":resume"))

    def receipt(self) -> Receipt:
        """Which bytes were read for it, by which credentials, and that they are refused now."""
        wire = self._api.get(self.collection, self.name, verb=":receipt")
        return converted(wire, Receipt)

    def model(self) -> Model:
        """
        The model that it wrote.

        Raises:
            NotFound: there is none (any more).
        """
        return Model.read(self._api, self._api.get("models", self.output_model))


def _shown() -> AbstractContextManager[Callable[[Job], None]]:
    from sublet.client.progress import shown_progress

    return shown_progress()


def _show_nothing(job: Job) -> None:
    del job


class SupervisedFineTuningJob(Job, frozen=True, kw_only=True):
    collection = "supervisedFineTuningJobs"


class _ConfiguredJob(Job, frozen=True, kw_only=True):
    @classmethod
    def read(cls, api: ApiClient, wire: Mapping[str, Any]) -> Self:
        """What stands under trainingConfig on the wire stands beside the state here."""
        return super().read(api, {**(wire.get("trainingConfig") or {}), **wire})


class ReinforcementStep(_ConfiguredJob, frozen=True, kw_only=True):
    """One step of policy improvement on rewards that are in the dataset."""

    collection = "rlorTrainerJobs"


class DpoJob(_ConfiguredJob, frozen=True, kw_only=True):
    """A training on which of two answers is preferred."""

    collection = "dpoJobs"
