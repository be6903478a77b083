"""Supervised fine-tuning jobs, and how any job names what it reads and writes."""

import secrets
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.bodies import MAX_DISPLAY_NAME, checked_display_name
from sublet.api.control_plane import Caller, JsonBody, Plane
from sublet.api.job_life import add_life, path_of, shown
from sublet.api.job_wire import JobAnswer
from sublet.api.not_honoured import PlacesElsewhere, RecipeFields, documented
from sublet.api.operations import operation
from sublet.api.paths import name_of
from sublet.errors import InvalidRequest
from sublet.models import CATALOGUE
from sublet.names import AccountName, DatasetName, JobName, ModelName
from sublet.training_runs import JobRequest

router = APIRouter()
add_life(router, JobName)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateJob(RecipeFields, PlacesElsewhere):
    """Fields that change what is trained and that no trainer of ours honours are refused."""

    dataset: str
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""
    display_name: Annotated[str, documented(maxLength=MAX_DISPLAY_NAME)] = ""
    evaluation_dataset: str = ""

    def check_offered(self) -> None:
        """
        Raises:
            Unimplemented: a field asks for what the trainer does not do; says what to use.
        """
        self.check_recipe()
        self.check_places()


@router.post(path_of(JobName))
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
        evaluation_dataset=own_dataset(own, asked.evaluation_dataset, "evaluationDataset")
        if asked.evaluation_dataset
        else None,
        output_model=own_model(own, asked.output_model or name.id, "outputModel"),
        settings=asked.settings(),
        machine=asked.machine(),
        given=asked.given(),
        display_name=checked_display_name(asked.display_name),
        created_by=caller.user,
    )
    return shown(plane, plane.training_runs.request(request)).to_json()


def own_dataset(account: AccountName, text: str, field: str = "dataset") -> DatasetName:
    name = DatasetName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"{field} must be of {account}; got {name}")
    return name


def own_model(account: AccountName, text: str, field: str) -> ModelName:
    name = ModelName.under(account, text)
    if name.account != account:
        raise InvalidRequest(f"{field} must be of {account}; got {name}")
    return name
