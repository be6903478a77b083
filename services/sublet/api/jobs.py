"""Supervised fine-tuning jobs: asked for, listed, cancelled; and the receipt of what they read."""

import secrets
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Page, Plane
from sublet.api.pages import list_page
from sublet.api.wire import job_to_wire, read, receipt_to_wire
from sublet.datasets import Status
from sublet.errors import InvalidRequest
from sublet.jobs import Job, JobState, TrainingSettings
from sublet.models import CATALOGUE
from sublet.names import AccountName, DatasetName, JobName, ModelName
from sublet.receipts import receipt_of
from sublet.training_runs import JobRequest, Outcome

router = APIRouter()

_JOBS = "/v1/accounts/{account}/supervisedFineTuningJobs"


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

    def settings(self) -> TrainingSettings:
        given: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "lora_rank": self.lora_rank,
            "max_context_length": self.max_context_length,
            "batch_size": self.batch_size,
            "learning_rate_warmup_steps": self.learning_rate_warmup_steps,
            "weight_decay": self.optimizer_weight_decay,
        }
        return TrainingSettings(
            **{name: value for name, value in given.items() if value is not None}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob(SettingsFields):
    dataset: str
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""
    display_name: str = ""


@router.post(_JOBS)
def create(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    supervisedFineTuningJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own, asked = caller.own(account), read(body, CreateJob)
    if asked.warm_start_from and asked.base_model:
        raise InvalidRequest("Only one of 'base_model' or 'warm_start_from' should be specified.")
    if not asked.base_model:
        raise InvalidRequest("baseModel is required; continuing from an adapter is not offered yet")
    name = JobName.of(own, supervisedFineTuningJobId or f"sftj-{secrets.token_hex(6)}")
    request = JobRequest(
        name=name,
        dataset=DatasetName.under(own, asked.dataset),
        base_model=ModelName.under(CATALOGUE, asked.base_model),
        output_model=_output_model(own, asked.output_model or name.id),
        settings=asked.settings(),
        display_name=asked.display_name,
        created_by=caller.user,
    )
    return _shown(plane, plane.training_runs.request(request))


@router.get(_JOBS)
def list_jobs(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.own(account)
    key = "supervisedFineTuningJobs"
    return list_page(plane.registry, Job, own, page, lambda job: _shown(plane, job), key)


@router.post(f"{_JOBS}/{{job}}:cancel")
def cancel(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    status = Status(code="CANCELLED", message=f"cancelled by {caller.user}")
    name = JobName.of(caller.own(account), job)
    plane.training_runs.end(name, Outcome(state=JobState.CANCELLED, status=status))
    return {}


@router.get(f"{_JOBS}/{{job}}:receipt")
def receipt(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    return receipt_to_wire(receipt_of(plane.registry, JobName.of(caller.own(account), job)))


@router.get(f"{_JOBS}/{{job}}")
def get(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    return _shown(plane, plane.find(Job, JobName.of(caller.own(account), job)))


def _shown(plane: ControlPlane, job: Job) -> dict[str, Any]:
    return job_to_wire(job, plane.clock.now(), plane.lease_terms)


def _output_model(account: AccountName, text: str) -> ModelName:
    name = ModelName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"outputModel must be of {account}; got {name}")
    return name
