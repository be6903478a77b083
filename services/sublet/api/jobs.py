"""
Supervised fine-tuning jobs: asked for, listed, cancelled, resumed, deleted; and the receipt of what
they read.
"""

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.bodies import MAX_DISPLAY_NAME, checked_display_name
from sublet.api.control_plane import Caller, ControlPlane, JsonBody, Mask, Page, Plane
from sublet.api.job_wire import JobAnswer
from sublet.api.operations import operation
from sublet.api.pages import list_page
from sublet.api.paths import name_in, name_of
from sublet.api.settings import SettingsFields
from sublet.datasets import Status
from sublet.delivery import signed_receipt_of
from sublet.errors import InvalidRequest, Unimplemented
from sublet.jobs import Job, JobState
from sublet.models import CATALOGUE
from sublet.names import AccountName, DatasetName, JobName, ModelName
from sublet.receipts import receipt_content, receipt_of
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


def _documented(**schema: object) -> msgspec.Meta:
    """Which values may be sent, for the document; what refuses the others says why."""
    return msgspec.Meta(extra_json_schema=schema)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob(SettingsFields):
    """Fields that change what is trained and that no trainer of ours honours are refused."""

    dataset: str
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""
    display_name: Annotated[str, _documented(maxLength=MAX_DISPLAY_NAME)] = ""
    evaluation_dataset: Annotated[str, _documented(maxLength=0)] = ""
    eval_auto_carveout: Annotated[bool, _documented(const=False)] = False
    early_stop: Annotated[bool, _documented(const=False)] = False
    gradient_accumulation_steps: Annotated[int, _documented(minimum=0, maximum=1)] = 0
    batch_size_samples: Annotated[int, _documented(const=0)] = 0
    jinja_template: Annotated[str, _documented(maxLength=0)] = ""
    renderer_hugging_face_repo_id: Annotated[str, _documented(maxLength=0)] = ""
    mtp_enabled: Annotated[bool, _documented(const=False)] = False
    aws_s3_config: Annotated[dict[str, Any], _documented(maxProperties=0)] = field(
        default_factory=dict
    )
    azure_blob_storage_config: Annotated[dict[str, Any], _documented(maxProperties=0)] = field(
        default_factory=dict
    )
    wandb_config: Annotated[dict[str, Any], _documented(maxProperties=0)] = field(
        default_factory=dict
    )

    def check_offered(self) -> None:
        """
        Raises:
            Unimplemented: a field asks for what the trainer does not do; says what to use.
        """
        elsewhere = "data is read from Cloud Storage alone; put the file into a bucket there"
        template = "rows are rendered by the base model's own chat template"
        asked = {
            "evaluationDataset": (self.evaluation_dataset, "evaluate the adapter yourself"),
            "evalAutoCarveout": (self.eval_auto_carveout, "keep rows for evaluation out of it"),
            "earlyStop": (self.early_stop, "set epochs"),
            "gradientAccumulationSteps": (
                self.gradient_accumulation_steps > 1,
                "batchSize is a whole step's tokens, accumulated as memory needs it",
            ),
            "batchSizeSamples": (self.batch_size_samples, "give batchSize, in tokens"),
            "jinjaTemplate": (self.jinja_template, template),
            "rendererHuggingFaceRepoId": (self.renderer_hugging_face_repo_id, template),
            "mtpEnabled": (self.mtp_enabled, "an adapter has no heads of its own"),
            "awsS3Config": (self.aws_s3_config, elsewhere),
            "azureBlobStorageConfig": (self.azure_blob_storage_config, elsewhere),
            "wandbConfig": (
                self.wandb_config.get("enabled", bool(self.wandb_config)),
                "read step and loss from the job: metrics of your data go to nobody else",
            ),
        }
        for name, (is_asked, instead) in asked.items():
            if is_asked:
                raise Unimplemented(f"{name} is not offered; {instead}")


@router.post(_JOBS)
@operation(
    takes=CreateJob,
    gives=JobAnswer,
    query=("supervisedFineTuningJobId",),
    refusals=(404, 409, 501),
)
def create(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    supervisedFineTuningJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = body.read(CreateJob, wrapped_in="supervisedFineTuningJob")
    asked.check_offered()
    name = name_of(JobName, own, supervisedFineTuningJobId or f"sftj-{secrets.token_hex(6)}")
    request = JobRequest(
        name=name,
        dataset=own_dataset(own, asked.dataset),
        base_model=ModelName.under(CATALOGUE, asked.base_model) if asked.base_model else None,
        warm_start_from=own_model(own, asked.warm_start_from, "warmStartFrom")
        if asked.warm_start_from
        else None,
        output_model=own_model(own, asked.output_model or name.id, "outputModel"),
        settings=asked.settings(),
        given=asked.given(),
        display_name=checked_display_name(asked.display_name),
        created_by=caller.user,
    )
    return _shown(plane, plane.training_runs.request(request)).to_json()


@router.get(_JOBS)
@operation(gives=JobAnswer, listed_as="supervisedFineTuningJobs")
def list_jobs(plane: Plane, caller: Caller, account: str, page: Page) -> dict[str, Any]:
    own = caller.may(Right.READ, account)
    key = "supervisedFineTuningJobs"
    return list_page(
        plane.registry, Job, own, page, lambda job: _shown(plane, job), key, filters=_FILTERS
    )


@router.post(f"{_JOBS}/{{job}}:cancel")
@operation()
def cancel(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.CREATE, account), job)
    status = Status(code="CANCELLED", message=f"cancelled by {caller.user}")
    plane.training_runs.end(name, Outcome(state=JobState.CANCELLED, status=status))
    return {}


@router.post(f"{_JOBS}/{{job}}:resume")
@operation(gives=JobAnswer, refusals=(409,))
def resume(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.CREATE, account), job)
    return _shown(plane, plane.training_runs.resume(name)).to_json()


@router.get(f"{_JOBS}/{{job}}:receipt")
@operation(gives=dict)
def receipt(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.READ, account), job)
    content = receipt_content(receipt_of(plane.registry, name, plane.lease_terms))
    signed = signed_receipt_of(plane.registry, plane.find(Job, name).lease)
    return {
        **content,
        "signedReceipt": signed.text if signed else "",
        "signedReceiptUri": signed.delivered_to if signed else "",
    }


@router.get(f"{_JOBS}/{{job}}")
@operation(gives=JobAnswer)
def get(plane: Plane, caller: Caller, account: str, job: str, mask: Mask) -> dict[str, Any]:
    name = name_in(JobName, caller.may(Right.READ, account), job)
    return mask.applied_to(_shown(plane, plane.find(Job, name)).to_json())


@router.delete(f"{_JOBS}/{{job}}")
@operation()
def delete(plane: Plane, caller: Caller, account: str, job: str) -> dict[str, Any]:
    plane.deletion.delete_job(name_in(JobName, caller.may(Right.MANAGE, account), job))
    return {}


def _shown(plane: ControlPlane, job: Job) -> JobAnswer:
    return JobAnswer.of(job, plane.clock.now(), plane.lease_terms)


def own_dataset(account: AccountName, text: str) -> DatasetName:
    name = DatasetName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"dataset must be of {account}; got {name}")
    return name


def own_model(account: AccountName, text: str, field: str) -> ModelName:
    name = ModelName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"{field} must be of {account}; got {name}")
    return name
