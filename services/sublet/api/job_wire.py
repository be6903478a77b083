"""Jobs as the API shows them: asked for, how far, and how the trainer is."""

from datetime import datetime

from sublet.api.answers import Answer, Int64, StatusAnswer, Timestamp, time_to_wire
from sublet.api.machine_fields import machine_shown
from sublet.api.settings import SettingsAnswer, settings_shown
from sublet.codec import rfc3339
from sublet.jobs import Job, JobState
from sublet.leases import LeaseTerms
from sublet.losses import Loss, LossMethod


class JobProgress(Answer, kw_only=True):
    percent: int
    epoch: int


class DpoAnswer(Answer, kw_only=True):
    beta: float


class LossAnswer(Answer, kw_only=True):
    method: LossMethod
    kl_beta: float | None = None
    dpo: DpoAnswer | None = None

    @classmethod
    def of(cls, loss: Loss) -> "LossAnswer":
        """With the values that are used where none was given."""
        return cls(
            method=loss.method,
            kl_beta=loss.kl_weight or None,
            dpo=DpoAnswer(beta=loss.beta) if loss.method is LossMethod.DPO else None,
        )


class TrainingConfigAnswer(SettingsAnswer, kw_only=True):
    base_model: str | None = None
    warm_start_from: str | None = None
    output_model: str

    @classmethod
    def of(cls, job: Job) -> "TrainingConfigAnswer":
        return cls(
            **settings_shown(job.settings),
            base_model=job.base_model if job.warm_start_from is None else None,
            warm_start_from=job.warm_start_from,
            output_model=job.output_model,
        )


class JobAnswer(SettingsAnswer, kw_only=True):
    """Where there is a loss config, what it trains stands in a training config, too."""

    name: str
    display_name: str
    create_time: Timestamp
    update_time: Timestamp
    completed_time: Timestamp | None = None
    state: JobState
    status: StatusAnswer
    dataset: str
    base_model: str | None = None
    warm_start_from: str | None = None
    output_model: str
    created_by: str
    batch_size_samples: int
    evaluation_dataset: str | None = None
    gradient_accumulation_steps: int
    accelerator_type: str | None = None
    accelerator_count: int | None = None
    training_config: TrainingConfigAnswer | None = None
    loss_config: LossAnswer | None = None
    reward_weights: list[str] | None = None
    job_progress: JobProgress
    step: int
    num_steps: int
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    start_time: Timestamp | None = None
    heartbeat_time: Timestamp | None = None
    heartbeat_age_seconds: float | None = None
    external_url: str
    external_generation: Int64
    output_uri: str
    lease: str | None = None
    execution: str | None = None
    watch: str | None = None

    @classmethod
    def of(cls, job: Job, now: datetime, terms: LeaseTerms) -> "JobAnswer":
        progress = job.progress
        age_s = (now - job.heartbeat_at).total_seconds() if job.heartbeat_at else None
        return cls(
            name=job.name,
            display_name=job.display_name,
            create_time=rfc3339(job.created_at),
            update_time=rfc3339(job.completed_at or job.heartbeat_at or job.created_at),
            completed_time=time_to_wire(job.completed_at),
            state=job.state,
            status=_status(job, age_s, terms),
            dataset=job.dataset,
            base_model=job.base_model if job.warm_start_from is None else None,
            warm_start_from=job.warm_start_from,
            output_model=job.output_model,
            created_by=job.created_by,
            **settings_shown(job.settings),
            batch_size_samples=0,
            evaluation_dataset=job.evaluation_dataset,
            gradient_accumulation_steps=1,
            **machine_shown(job.machine),
            training_config=TrainingConfigAnswer.of(job) if job.loss else None,
            loss_config=LossAnswer.of(job.loss) if job.loss else None,
            reward_weights=_weights(job.loss) if job.loss else None,
            job_progress=JobProgress(percent=progress.percent, epoch=int(progress.epoch)),
            step=progress.step,
            num_steps=progress.num_steps,
            loss=progress.loss,
            eval_loss=progress.eval_loss,
            tokens_per_second=progress.tokens_per_s,
            eta_seconds=progress.eta_s,
            start_time=time_to_wire(job.started_at),
            heartbeat_time=time_to_wire(job.heartbeat_at),
            heartbeat_age_seconds=age_s,
            external_url=job.object.url,
            external_generation=str(job.object.generation),
            output_uri=job.output.url,
            lease=job.lease,
            execution=job.execution or None,
            watch=job.watch,
        )


def _weights(loss: Loss) -> list[str] | None:
    return [f"{name}={weight:g}" for name, weight in loss.reward_weights.items()] or None


def _status(job: Job, heartbeat_age_s: float | None, terms: LeaseTerms) -> StatusAnswer:
    """A job that is not over and whose trainer went silent says so before the sweep ends it."""
    is_silent = (
        heartbeat_age_s is not None
        and not job.is_over
        and heartbeat_age_s > terms.holder_is_lost_after.total_seconds()
    )
    message = f"no heartbeat of the trainer for {heartbeat_age_s:.0f} s" if is_silent else ""
    return StatusAnswer(code=job.status.code, message=message or job.status.message)
