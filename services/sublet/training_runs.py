"""
The life of a job's record: asked for once, kept true while it runs, ended once. A job and the model
it will write are created together, so a model's name is taken from the moment that somebody trains
it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sublet.access import verify
from sublet.datasets import OK, Dataset, DatasetState, Status
from sublet.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    LostRace,
    NotFound,
    TryAgain,
    Unimplemented,
)
from sublet.events import TrainingFinished, TrainingRequested
from sublet.handover import TrainedAdapter
from sublet.jobs import Job, JobState, PinnedObject, TrainingSettings
from sublet.leases import Lease
from sublet.losses import Loss, verify_trains_on
from sublet.machines import EVERYTHING, Machine, Offer
from sublet.models import Adapter, Model, ModelKind, ModelState, settings_to_continue
from sublet.names import DatasetName, JobName, ModelName, OutputPrefix, WatchName, check_prefix
from sublet.outbox import Outbox
from sublet.ports import Clock, Registry, Stored, Write, create

DEFAULT_OUTPUT_PREFIX = "models/"
MAX_EVALUATION_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest:
    """
    Exactly one of `base_model` and `warm_start_from` is given. `given` are the settings that the
    caller named, for an adapter's own to be held against; `starts_from` are its tensors.
    """

    name: JobName
    dataset: DatasetName
    base_model: ModelName | None = None
    warm_start_from: ModelName | None = None
    starts_from: PinnedObject | None = None
    base_sha256: str = ""
    evaluation_dataset: DatasetName | None = None
    output_model: ModelName
    settings: TrainingSettings
    machine: Machine | None = None
    loss: Loss | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    output_prefix: str = DEFAULT_OUTPUT_PREFIX
    display_name: str = ""
    watch: WatchName | None = None
    created_by: str

    def job(self, dataset: Dataset, now: datetime, *, evaluation: Dataset | None = None) -> Job:
        """The job that this request makes of that dataset; equal requests make equal jobs."""
        assert self.base_model is not None
        output = OutputPrefix(
            bucket=dataset.object.bucket,
            prefix=f"{check_prefix(self.output_prefix)}{self.output_model.id}/",
        )
        return Job(
            name=self.name,
            display_name=self.display_name,
            dataset=self.dataset,
            object=dataset.object,
            base_model=self.base_model,
            output_model=self.output_model,
            output=output,
            settings=self.settings,
            machine=self.machine,
            loss=self.loss,
            warm_start_from=self.warm_start_from,
            starts_from=self.starts_from,
            base_sha256=self.base_sha256,
            evaluation_dataset=self.evaluation_dataset,
            evaluation=_pinned(evaluation) if evaluation else None,
            watch=self.watch,
            created_by=self.created_by,
            created_at=now,
        )


def creating(job: Job) -> tuple[Write, Write, TrainingRequested]:
    """The job, the model that it will write, and the request to start it: committed together."""
    model = Model(
        name=job.output_model,
        display_name=job.display_name,
        kind=ModelKind.HF_BASE_MODEL
        if job.settings.trains_all_weights
        else ModelKind.HF_PEFT_ADDON,
        state=ModelState.UPLOADING,
        uri=job.output.url,
        job=job.name,
        created_at=job.created_at,
    )
    return create(job), create(model), TrainingRequested(job=job.name, requested_at=job.created_at)


def last_sign_of_a_holder(lease: Lease, job: Job | None) -> datetime:
    """When one was last heard of, or asked for."""
    asked_for = job.requested_at if job else None
    return max(lease.last_heard_of, asked_for or lease.created_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ends. `adapter` is what was written, if it went well."""

    state: JobState
    status: Status = OK
    adapter: TrainedAdapter | None = None


def ending(
    job: Stored[Job], model: Stored[Model] | None, outcome: Outcome, now: datetime
) -> tuple[list[Write], TrainingFinished]:
    """
    The job over and its model ready, or its name free again: committed together.

    Raises:
        FailedPrecondition: the job is over already.
    """
    ended = job.record.ended(outcome.state, at=now, status=outcome.status)
    writes = [job.replaced_by(ended)]
    if model and outcome.adapter:
        writes.append(model.replaced_by(_ready(model.record, ended, outcome.adapter)))
    elif model and model.record.state is not ModelState.READY:
        writes.append(model.deleted())
    return writes, TrainingFinished(
        job=ended.name,
        lease=ended.lease,
        model=ended.output_model if outcome.adapter else None,
        state=ended.state,
        finished_at=now,
    )


def _ready(model: Model, job: Job, adapter: TrainedAdapter) -> Model:
    return replace(
        model,
        state=ModelState.READY,
        uri=f"gs://{job.output.bucket}/{adapter.folder}",
        adapter=None
        if job.settings.trains_all_weights
        else Adapter(
            base_model=job.base_model,
            rank=adapter.rank,
            target_modules=adapter.target_modules,
            weights=adapter.weights,
            base_sha256=adapter.base_sha256,
        ),
        settings=job.settings,
    )


def check_one_start(base_model: ModelName | None, warm_start_from: ModelName | None) -> None:
    """
    Raises:
        InvalidRequest: there is not exactly one model to start from.
    """
    if base_model and warm_start_from:
        raise InvalidRequest("Only one of 'base_model' or 'warm_start_from' should be specified.")
    if not base_model and not warm_start_from:
        raise InvalidRequest(
            "got neither baseModel nor warmStartFrom; expected one of them: "
            "see `sublet list models -a fireworks` for base models"
        )


class TrainingRuns:
    def __init__(
        self, registry: Registry, outbox: Outbox, clock: Clock, offer: Offer = EVERYTHING
    ) -> None:
        self._registry = registry
        self._outbox = outbox
        self._clock = clock
        self._offer = offer

    def chosen(self, machine: Machine | None) -> Machine | None:
        """
        What is asked for with every choice made; None if nothing is.

        Raises:
            InvalidRequest: this deployment has no such machine; names those that it has.
        """
        return machine and self._offer.machine_of(machine)

    def request(self, request: JobRequest) -> Job:
        """
        Create the job, or find it again if the same was asked for before.

        Raises:
            NotFound, FailedPrecondition: the dataset is missing or was refused.
            InvalidRequest: there is not exactly one model to start from, or it cannot be that one;
                or this deployment has no such machine.
            Unimplemented: its loss is not offered with these settings.
            AccessDenied: the bucket does not let the model be written.
            AlreadyExists: the job's or the model's name is taken by something else.
        """
        _check_trainable(request.settings, request.loss)
        request = replace(request, machine=self.chosen(request.machine))
        asked = request
        while True:
            request, start = self._with_start(asked)
            dataset = self._usable_dataset(request.dataset)
            evaluation = self._evaluation(request, dataset.record)
            job = request.job(
                dataset.record,
                self._clock.now(),
                evaluation=evaluation.record if evaluation else None,
            )
            _check_one_bucket(job)
            _verify_rows(dataset.record, job)
            if existing := self._registry.get(Job, request.name):
                if _as_requested(existing.record) != _as_requested(job):
                    raise AlreadyExists(
                        f"{request.name} exists and is another one; choose another id"
                    )
                return existing.record
            if self._registry.get(Model, job.output_model):
                raise AlreadyExists(
                    f"Model {job.output_model} already exists; choose another outputModel"
                )
            verify(dataset.record.access.refusals(to_train=True), url=job.output.url)
            *writes, requested = creating(job)
            needed: tuple[Stored[Any] | None, ...] = (dataset, evaluation, start)
            try:  # what it needs is written as it is, so that it cannot be deleted meanwhile
                entries = self._registry.commit(
                    *(one.replaced_by(one.record) for one in needed if one),
                    *writes,
                    announcing=[requested],
                )
            except LostRace:
                continue
            self._outbox.publish(entries)
            return job

    def resume(self, name: JobName) -> Job:
        """
        Ask once more for a job that failed or was cancelled, from its last checkpoint on.

        Raises:
            NotFound: there is no such job, or its dataset was deleted.
            FailedPrecondition: it is running, or done.
            AlreadyExists: its model's name has been taken since.
            TryAgain: its last access is still being ended.
        """
        while True:
            stored = self._registry.get(Job, name)
            if stored is None:
                raise NotFound(f"{name} does not exist")
            lease = self._registry.get(Lease, stored.record.lease) if stored.record.lease else None
            now = self._clock.now()
            checkpoint = lease.record.checkpoint if lease else ""
            job = stored.record.resumed(resume_from=checkpoint, now=now)
            if lease and lease.record.is_living:
                raise TryAgain(f"{name}: its last access is still being ended; ask again")
            dataset = self._usable_dataset(job.dataset)
            if self._registry.get(Model, job.output_model):
                raise AlreadyExists(f"Model {job.output_model} already exists")
            _, model, requested = creating(job)
            requested = replace(requested, requested_at=now)
            try:
                entries = self._registry.commit(
                    stored.replaced_by(job),
                    dataset.replaced_by(dataset.record),
                    model,
                    announcing=[requested],
                )
            except LostRace:
                continue
            self._outbox.publish(entries)
            return job

    def end(self, name: JobName, outcome: Outcome) -> Job:
        """End a job that is not over, whoever asks; its lease is revoked by whoever hears of it."""
        while True:
            job = self._registry.get(Job, name)
            if job is None:
                raise NotFound(f"{name} does not exist")
            if job.record.is_over:
                return job.record
            model = self._registry.get(Model, job.record.output_model)
            writes, finished = ending(job, model, outcome, self._clock.now())
            try:
                entries = self._registry.commit(*writes, announcing=[finished])
            except LostRace:
                continue
            self._outbox.publish(entries)

    def _usable_dataset(self, name: DatasetName) -> Stored[Dataset]:
        dataset = self._registry.get(Dataset, name)
        if dataset is None:
            raise NotFound(f"{name} does not exist")
        if dataset.record.state is not DatasetState.READY:
            raise FailedPrecondition(f"{name} was refused: {dataset.record.status.message}")
        return dataset

    def _evaluation(self, request: JobRequest, dataset: Dataset) -> Stored[Dataset] | None:
        """
        The dataset to evaluate on, if there is one.

        Raises:
            NotFound, FailedPrecondition: it is missing or was refused.
            InvalidRequest: it is too large, or of other rows; or there is nothing to stop by.
            Unimplemented: the job is not a supervised one.
        """
        settings = request.settings
        if request.loss and (request.evaluation_dataset or settings.is_evaluated):
            raise Unimplemented(
                "evaluationDataset, evalAutoCarveout and earlyStop are offered for supervised jobs"
            )
        if request.evaluation_dataset is None:
            if settings.early_stop and not settings.eval_auto_carveout:
                raise InvalidRequest(
                    "got earlyStop and nothing to evaluate on; give evaluationDataset, or "
                    "evalAutoCarveout to hold rows out of the dataset"
                )
            return None
        if settings.eval_auto_carveout:
            raise InvalidRequest("got evaluationDataset and evalAutoCarveout; expected one of them")
        stored = self._usable_dataset(request.evaluation_dataset)
        check_evaluation(stored.record, dataset)
        return stored

    def _with_start(self, request: JobRequest) -> tuple[JobRequest, Stored[Model] | None]:
        """The request with all that it starts from, and the adapter that it continues, if any."""
        check_one_start(request.base_model, request.warm_start_from)
        if request.base_model:
            self._check_base_model(request.base_model)
            return request, None
        assert request.warm_start_from is not None
        stored = self._registry.get(Model, request.warm_start_from)
        if stored is None:
            raise InvalidRequest(f"warmStartFrom: {request.warm_start_from} does not exist")
        settings = settings_to_continue(stored.record, request.given)
        adapter = stored.record.adapter
        assert adapter is not None
        continuing = replace(
            request,
            base_model=adapter.base_model,
            starts_from=adapter.weights,
            base_sha256=adapter.base_sha256,
            settings=settings,
        )
        return continuing, stored

    def _check_base_model(self, name: ModelName) -> None:
        model = self._registry.get(Model, name)
        if model is None:
            raise InvalidRequest(
                f"base model {name} does not exist; see `sublet list models -a fireworks`"
            )
        if model.record.kind is not ModelKind.HF_BASE_MODEL:
            raise InvalidRequest(
                f"{name} is an {model.record.kind}, not a base model; "
                "give an adapter as warmStartFrom"
            )
        if model.record.job:
            raise InvalidRequest(
                f"{name} lies in the bucket of its owner, where jobs read rows and no base models; "
                "give one of the catalogue: see `sublet list models -a fireworks`"
            )


def _check_trainable(settings: TrainingSettings, loss: Loss | None) -> None:
    """
    Raises:
        Unimplemented: the loss needs the model that was started from, and all weights change.
    """
    if loss and settings.trains_all_weights:
        raise Unimplemented(
            f"{loss.method} on full weights needs a second model beside the first; give a loraRank "
            "of 1 or more"
        )


def check_evaluation(evaluation: Dataset, dataset: Dataset) -> None:
    """
    Raises:
        InvalidRequest: the first cannot evaluate what is trained on the second.
    """
    if evaluation.name == dataset.name:
        raise InvalidRequest(f"{dataset.name} cannot be evaluated on itself; use evalAutoCarveout")
    if evaluation.size_bytes > MAX_EVALUATION_BYTES:
        raise InvalidRequest(
            f"{evaluation.name} has {evaluation.size_bytes} bytes; an evaluation dataset has at "
            f"most {MAX_EVALUATION_BYTES}, since it is held in memory"
        )
    formats = [one.rows.format if one.rows else None for one in (evaluation, dataset)]
    if formats[0] != formats[1]:
        raise InvalidRequest(
            f"{evaluation.name} has {formats[0]} rows and {dataset.name} {formats[1]} rows; "
            "expected the same"
        )


def _pinned(dataset: Dataset) -> PinnedObject:
    return PinnedObject(
        version=dataset.object, crc32c=dataset.crc32c, size_bytes=dataset.size_bytes
    )


def _check_one_bucket(job: Job) -> None:
    """
    One lease, one bucket whose identity is checked at every mint.

    Raises:
        InvalidRequest: something that the job reads lies in another bucket.
    """
    for version in job.reads_beside:
        if version.bucket != job.object.bucket:
            raise InvalidRequest(
                f"{version.url} and {job.object.url} lie in two buckets; a job reads one bucket: "
                f"register the dataset in gs://{version.bucket}"
            )


def _verify_rows(dataset: Dataset, job: Job) -> None:
    """
    Raises:
        FailedPrecondition: the dataset's rows are for another kind of job.
    """
    if dataset.rows and dataset.rows.format:
        verify_trains_on(dataset.rows.format, job.loss, dataset=dataset.name)


def _as_requested(job: Job) -> Sequence[object]:
    return (
        job.loss,
        job.dataset,
        job.evaluation_dataset,
        job.base_model,
        job.warm_start_from,
        job.output_model,
        job.output,
        job.settings,
        job.machine,
        job.display_name,
    )
