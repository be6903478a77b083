"""
Supervised fine-tuning jobs: asked for, listed, cancelled, resumed, deleted; and the receipt of what
they read.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Mask, Page, Plane
from sublet.api.lease_wire import receipt_to_wire
from sublet.api.pages import list_page
from sublet.api.paths import name_in
from sublet.api.wire import job_to_wire, read, unwrapped
from sublet.datasets import Status
from sublet.errors import InvalidRequest, Unimplemented
from sublet.jobs import Job, JobState, TrainingSettings
from sublet.models import CATALOGUE
from sublet.names import AccountName, DatasetName, JobName, ModelName
from sublet.receipts import receipt_of
from sublet.training_runs import JobRequest, Outcome

router = APIRouter()

_JOBS: Final = "/v1/accounts/{account}/supervisedFineTuningJobs"
_FILTERS: Final = {
    "name": "name",
    "displayName": "display_name",
    "state": "state",
    "dataset": "dataset",
    "baseModel": "base_model",
    "outputModel": "output_model",
    "createdBy": "created_by",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFields:
    """
    Hyper-parameters as the API names them; what is not given has the default of TrainingSettings.
    """

    epochs: int | None = None
    learning_rate: float | None = None
    lora_rank: int | None = None
    max_context_length: int | None = None
    batch_size: int | None = None
    learning_rate_warmup_steps: int | None = None
    optimizer_weight_decay: float | None = None

    def given(self) -> dict[str, Any]:
        """Those that the caller named, as TrainingSettings calls them."""
        named: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "lora_rank": self.lora_rank,
            "max_context_length": self.max_context_length,
            "batch_size": self.batch_size,
            "learning_rate_warmup_steps": self.learning_rate_warmup_steps,
            "weight_decay": self.optimizer_weight_decay,
        }
        return {name: value for name, value in named.items() if value is not None}

    def settings(self) -> TrainingSettings:
        return TrainingSettings(**self.given())


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob(SettingsFields):
    """Fields that change what is trained and that no trainer of ours honours are refused."""

    dataset: str
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""
    display_name: str = ""
    evaluation_dataset: str = ""
    eval_auto_carveout: bool = False
    early_stop: bool = False
    gradient_accumulation_steps: int = 0
    batch_size_samples: int = 0

    def check_offered(self) -> None:
        """
        Raises:
            Unimplemented: a field asks for what the trainer does not do; says what to use.
        """
        asked = {
            "evaluationDataset": (self.evaluation_dataset, "evaluate the adapter yourself"),
            "evalAutoCarveout": (self.eval_auto_carveout, "keep rows for evaluation out of it"),
            "earlyStop": (self.early_stop, "set epochs"),
            "gradientAccumulationSteps": (
                self.gradient_accumulation_steps > 1,
                "batchSize is a whole step's tokens, accumulated as memory needs it",
            ),
            "batchSizeSamples": (self.batch_size_samples, "give batchSize, in tokens"),
        }
        for name, (is_asked, instead) in asked.items():
            if is_asked:
                raise Unimplemented(f"{name} is not offered; {instead}")


@router.post(_JOBS)
def create(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    supervisedFineTuningJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = read(unwrapped(body, "supervisedFineTuningJob"), CreateJob)
    asked.check_offered()
    name = name_in(JobName, own, supervisedFineTuningJobId or f"sftj-{secrets.token_hex(6)}")
    request = JobRequest(
        name=name,
        dataset=_own_dataset(own, asked.dataset),
        base_model=ModelName.under(CATALOGUE, asked.base_model) if asked.base_model else None,
        warm_start_from=_own_model(own, asked.warm_start_from, "warmStartFrom")
        if asked.warm_start_from
        else None,
        output_model=_own_model(own, asked.output_model or name.id, "outputModel"),
        settings=asked.settings(),
        given=asked.given(),
        display_name=asked.display_name,
        created_by=caller.user,
    )
    return _shown(plane, plane.training_runs.request(request))


@router.get(_JOBS)
def list_jobs(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.READ, account)
    key = "supervisedFineTuningJobs"
    return list_page(
        plane.registry, Job, own, page, lambda job: _shown(plane, job), key, filters=_FILTERS
    )


@router.post(f"{_JOBS}/{{job}}:cancel")
def cancel(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.CREATE, account), job)
    status = Status(code="CANCELLED", message=f"cancelled by {caller.user}")
    plane.training_runs.end(name, Outcome(state=JobState.CANCELLED, status=status))
    return {}


@router.post(f"{_JOBS}/{{job}}:resume")
def resume(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.CREATE, account), job)
    return _shown(plane, plane.training_runs.resume(name))


@router.get(f"{_JOBS}/{{job}}:receipt")
def receipt(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.READ, account), job)
    return receipt_to_wire(receipt_of(plane.registry, name))


@router.get(f"{_JOBS}/{{job}}")
def get(plane: Plane, caller: Caller, account: str, job: str, mask: Mask) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.READ, account), job)
    return mask.applied_to(_shown(plane, plane.find(Job, name)))


@router.delete(f"{_JOBS}/{{job}}")
def delete(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    plane.deletion.delete_job(name_in(JobName, caller.may(Right.MANAGE, account), job))
    return {}


def _shown(plane: ControlPlane, job: Job) -> dict[str, Any]:
    return job_to_wire(job, plane.clock.now(), plane.lease_terms)


def _own_dataset(account: AccountName, text: str) -> DatasetName:
    name = DatasetName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"dataset must be of {account}; got {name}")
    return name


def _own_model(account: AccountName, text: str, field: str) -> ModelName:
    name = ModelName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"{field} must be of {account}; got {name}")
    return name
