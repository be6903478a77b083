"""Fine-tuning jobs: what was asked for, how far it is, and how it ended."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Self

from sublet.datasets import OK, Status
from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.losses import Loss
from sublet.machines import Machine
from sublet.names import (
    DatasetName,
    JobName,
    LeaseName,
    ModelName,
    ObjectVersion,
    OutputPrefix,
    WatchName,
)


class JobState(StrEnum):
    """The states that every client of the API knows."""

    CREATING = "JOB_STATE_CREATING"
    PENDING = "JOB_STATE_PENDING"
    RUNNING = "JOB_STATE_RUNNING"
    WRITING_RESULTS = "JOB_STATE_WRITING_RESULTS"
    COMPLETED = "JOB_STATE_COMPLETED"
    FAILED = "JOB_STATE_FAILED"
    CANCELLED = "JOB_STATE_CANCELLED"


TERMINAL: Final = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
RESUMABLE: Final = frozenset({JobState.FAILED, JobState.CANCELLED})
_RANK: Final = {state: rank for rank, state in enumerate(JobState)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """
    Hyper-parameters of fine-tuning; those of the adapter have PEFT's names.

    `batch_size` is in tokens: documents are packed until an optimiser step holds about that many.
    `learning_rate_scheduler` is how the rate falls from its peak to `learning_rate_min_lr_ratio` of
    it at the last step. `lora_rank` 0 trains all weights. `lora_alpha` None is twice the rank; no
    `target_modules` are all linear layers that are known.
    `early_stop` ends after an epoch whose evaluation is no better than the best one before.

    Raises:
        InvalidRequest: a value is out of its range; the message gives field, value and range.
    """

    epochs: int = 1
    learning_rate: float = 1e-4
    lora_rank: int = 8
    max_context_length: int = 8192
    batch_size: int = 32768
    learning_rate_warmup_steps: int = 0
    learning_rate_scheduler: str = "cosine"
    learning_rate_min_lr_ratio: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    lora_alpha: int | None = None
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = ()
    use_rslora: bool = False
    use_dora: bool = False
    drops_long_rows: bool = False
    eval_auto_carveout: bool = False
    early_stop: bool = False

    def __post_init__(self) -> None:
        for name, (least, most) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InvalidRequest(f"got {name} {value}; expected {least} to {most}")
        if self.learning_rate_scheduler not in SCHEDULERS:
            raise InvalidRequest(
                f"got learning_rate_scheduler {self.learning_rate_scheduler!r}; expected one of "
                f"{', '.join(SCHEDULERS)}"
            )
        if self.early_stop and self.epochs < MIN_EPOCHS_TO_STOP:
            raise InvalidRequest(
                f"got early_stop and epochs {self.epochs}; expected {MIN_EPOCHS_TO_STOP} or more: "
                "the adapter is evaluated after each"
            )
        if self.trains_all_weights and (given := self._given_for_an_adapter()):
            raise InvalidRequest(
                f"got lora_rank 0, which trains all weights, and {', '.join(given)}; expected "
                "these only with an adapter"
            )
        for module in self.target_modules:
            if not _MODULE.fullmatch(module):
                raise InvalidRequest(
                    f"got target module {module!r}; expected the last part of a layer's name, "
                    "such as q_proj"
                )

    @property
    def is_evaluated(self) -> bool:
        return self.eval_auto_carveout or self.early_stop

    @property
    def trains_all_weights(self) -> bool:
        return self.lora_rank == 0

    def _given_for_an_adapter(self) -> list[str]:
        """Stopping early too: it would keep a second copy of the weights."""
        names = ("lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora")
        return [name for name in (*names, "early_stop") if getattr(self, name)]

    @property
    def alpha(self) -> int:
        """What scales the adapter, before it is divided by its rank or the root of that."""
        return self.lora_alpha or 2 * self.lora_rank


MIN_EPOCHS_TO_STOP: Final = 2
SCHEDULERS: Final = ("cosine", "linear", "constant")
RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "epochs": (1, 100),
    "learning_rate": (1e-8, 0.1),
    "lora_rank": (0, 64),
    "max_context_length": (16, 1_048_576),
    "batch_size": (16, 2**31 - 1),
    "learning_rate_warmup_steps": (0, 1_000_000),
    "learning_rate_min_lr_ratio": (0.0, 1.0),
    "weight_decay": (0.0, 1.0),
    "seed": (0, 2**31 - 1),
    "lora_alpha": (1, 1024),
    "lora_dropout": (0.0, 0.9),
}
_MODULE: Final = re.compile("[A-Za-z0-9_]{1,64}")
SETTINGS: Final = tuple(field.name for field in fields(TrainingSettings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """
    The trainer's last word. Losses are nats per supervised token, `eval_loss` that of the newest
    evaluation; `eta_s` is its own estimate.
    """

    step: int = 0
    num_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None

    @property
    def percent(self) -> int:
        return min(100, 100 * self.step // self.num_steps) if self.num_steps else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedObject:
    """What a job reads beside its dataset; size and crc32c are that generation's."""

    version: ObjectVersion
    crc32c: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    One training of one base model on one object generation into one output prefix.

    `machine` None is the deployment's own; `loss` None is supervised fine-tuning's.
    `starts_from` are the tensors of the adapter `warm_start_from`, which belong to the base model
    of `base_sha256`; `evaluation` is the object of `evaluation_dataset`.
    `lease` and `execution` are those of the newest start; a job that is started again keeps its
    name. `resume_from` is the checkpoint that it began with.
    `requested_at` is when its start was last asked for (when it was created, if not since), and
    `num_repeats` how often it was asked for again.
    """

    name: JobName
    display_name: str
    dataset: DatasetName
    object: ObjectVersion
    base_model: ModelName
    output_model: ModelName
    output: OutputPrefix
    settings: TrainingSettings
    machine: Machine | None = None
    loss: Loss | None = None
    warm_start_from: ModelName | None = None
    starts_from: PinnedObject | None = None
    base_sha256: str = ""
    evaluation_dataset: DatasetName | None = None
    evaluation: PinnedObject | None = None
    state: JobState = JobState.CREATING
    status: Status = OK
    progress: Progress = Progress()
    lease: LeaseName | None = None
    execution: str = ""
    resume_from: str = ""
    requested_at: datetime | None = None
    num_repeats: int = 0
    watch: WatchName | None = None
    created_by: str
    created_at: datetime
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.name.account,
            "name": self.name,
            "kind": self.name.collection,
            "display_name": self.display_name,
            "dataset": self.dataset,
            "base_model": self.base_model,
            "output_model": self.output_model,
            "warm_start_from": self.warm_start_from or "",
            "created_by": self.created_by,
            "state": self.state,
            "is_over": str(self.is_over),
            "created_at": self.created_at.isoformat(),
        }

    @property
    def is_over(self) -> bool:
        return self.state in TERMINAL

    @property
    def reads_beside(self) -> tuple[ObjectVersion, ...]:
        """What its lease opens beside the dataset."""
        return tuple(one.version for one in (self.starts_from, self.evaluation) if one)

    def moved_to(self, state: JobState, **changes: Any) -> Self:  # noqa: ANN401  any field of a job
        """
        The same job in a later state; states never fall back, and the last ones absorb.

        Raises:
            FailedPrecondition: the job is over, or already further.
        """
        if self.is_over or _RANK[state] < _RANK[self.state]:
            raise FailedPrecondition(f"{self.name} is {self.state}; it cannot become {state}")
        return replace(self, state=state, **changes)

    def advanced_to(self, state: JobState, **changes: Any) -> Self:  # noqa: ANN401  any field of a job
        """
        The same job in that state, or in the one it has if that is further; it must not be over.
        """
        return self.moved_to(max(self.state, state, key=_RANK.__getitem__), **changes)

    def requested_again(self, now: datetime) -> Self:
        return replace(self, requested_at=now, num_repeats=self.num_repeats + 1)

    def continued(self, *, resume_from: str, now: datetime) -> Self:
        """The same job, whose execution is over, asked to go on in another under its lease."""
        return replace(self, execution="", resume_from=resume_from, requested_at=now, num_repeats=0)

    def resumed(self, *, resume_from: str, now: datetime) -> Self:
        """
        The same job asked for once more, to go on from a checkpoint where there is one.

        Raises:
            FailedPrecondition: it has not failed and was not cancelled.
        """
        if self.state not in RESUMABLE:
            raise FailedPrecondition(
                f"{self.name} is {self.state}; only a job that failed or was cancelled is resumed"
            )
        return replace(
            self,
            state=JobState.CREATING,
            status=OK,
            lease=None,
            execution="",
            resume_from=resume_from,
            requested_at=now,
            num_repeats=0,
            heartbeat_at=None,
            completed_at=None,
        )

    def ended(self, state: JobState, *, at: datetime, status: Status = OK) -> Self:
        return self.moved_to(state, completed_at=at, status=status)
