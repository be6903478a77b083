"""
Reinforcement steps and preference jobs. They are jobs as supervised ones are, with another loss and
other rows, under collections of their own.
"""

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.bodies import MAX_DISPLAY_NAME, checked_display_name
from sublet.api.control_plane import Caller, JsonBody, Plane
from sublet.api.job_life import add_life, path_of, shown
from sublet.api.job_wire import JobAnswer
from sublet.api.jobs import own_dataset, own_model
from sublet.api.not_honoured import PlacesElsewhere, RecipeFields, documented, refuse_asked
from sublet.api.operations import operation
from sublet.api.paths import name_of
from sublet.errors import InvalidRequest, Unimplemented
from sublet.losses import (
    PREFERENCE,
    REINFORCEMENT,
    Loss,
    LossMethod,
    parse_method,
    parse_reward_weights,
)
from sublet.models import CATALOGUE
from sublet.names import JobName, ModelName, PreferenceJobName, ReinforcementJobName
from sublet.training_runs import JobRequest, check_one_start

router = APIRouter()

_ONE_STEP = (
    "create a job for each step, with warmStartFrom the model before: its access ends with it"
)
_EVALUATE = "rewards and evaluations stay with you: `sublet rollout` scores a model of yours"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoFields:
    beta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFields:
    method: str = ""
    kl_beta: float | None = None
    dpo: DpoFields = field(default_factory=DpoFields)

    def loss(self, among: tuple[LossMethod, ...], rewards: list[str] | None = None) -> Loss:
        return Loss(
            method=parse_method(self.method, among),
            kl_beta=self.kl_beta,
            dpo_beta=self.dpo.beta,
            reward_weights=parse_reward_weights(rewards) if rewards is not None else {},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(RecipeFields):
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""

    def check_offered(self) -> None:
        """
        Raises:
            Unimplemented: a field asks for what the trainer does not do; says what to use.
        """
        self.check_recipe()
        refuse_asked(
            {
                "evalAutoCarveout": (self.eval_auto_carveout, _EVALUATE),
                "earlyStop": (self.early_stop, "set epochs"),
                "loraRank 0": (
                    self.lora_rank == 0,
                    "what training starts from is the model without its adapter: give a rank",
                ),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePreferenceJob(PlacesElsewhere):
    dataset: str
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    loss_config: LossFields = field(default_factory=LossFields)
    display_name: Annotated[str, documented(maxLength=MAX_DISPLAY_NAME)] = ""

    def loss(self) -> Loss:
        """
        Raises:
            InvalidRequest: a method or a setting that cannot be.
            Unimplemented: GRPO, for which a preference is a group of two.
        """
        if self.loss_config.method == LossMethod.GRPO:
            raise Unimplemented(
                "GRPO on preferences is not offered; use DPO or ORPO, or score both answers and "
                "use rlorTrainerJobs"
            )
        return self.loss_config.loss(PREFERENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateReinforcementStep(PlacesElsewhere):
    """`outputModel` may stand beside the training config, or in it."""

    dataset: str = ""
    output_model: str = ""
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    reward_weights: list[str] = field(default_factory=list)
    loss_config: LossFields = field(default_factory=LossFields)
    display_name: Annotated[str, documented(maxLength=MAX_DISPLAY_NAME)] = ""
    keep_alive: Annotated[bool, documented(const=False)] = False
    service_mode: Annotated[bool, documented(const=False)] = False
    forward_only: Annotated[bool, documented(const=False)] = False
    eval_auto_carveout: Annotated[bool, documented(const=False)] = False
    evaluation_dataset: Annotated[str, documented(maxLength=0)] = ""
    hot_load_deployment_id: Annotated[str, documented(maxLength=0)] = ""
    rollout_deployment_name: Annotated[str, documented(maxLength=0)] = ""

    def check_offered(self) -> None:
        """
        Raises:
            InvalidRequest: a combination that cannot be.
            Unimplemented: it is to serve, or to live on after its step.
        """
        if self.service_mode and self.training_config.lora_rank:
            raise InvalidRequest(
                f"got serviceMode and loraRank {self.training_config.lora_rank}: "
                "`loraRank>0` is rejected in service mode"
            )
        serve = "load the adapter from your own bucket into a server of yours"
        refuse_asked(
            {
                "serviceMode": (self.service_mode, _ONE_STEP),
                "keepAlive": (self.keep_alive, _ONE_STEP),
                "forwardOnly": (self.forward_only, "each step computes its own reference"),
                "evalAutoCarveout": (self.eval_auto_carveout, _EVALUATE),
                "evaluationDataset": (self.evaluation_dataset, _EVALUATE),
                "hotLoadDeploymentId": (self.hot_load_deployment_id, serve),
                "rolloutDeploymentName": (self.rollout_deployment_name, serve),
            }
        )
        if not self.dataset:
            raise InvalidRequest("dataset is required")


@router.post(path_of(ReinforcementJobName))
@operation(
    takes=CreateReinforcementStep,
    gives=JobAnswer,
    query=("rlorTrainerJobId",),
    refusals=(404, 409, 501),
)
def create_reinforcement_step(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    rlorTrainerJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = body.read(CreateReinforcementStep, wrapped_in="rlorTrainerJob")
    asked.check_offered()
    asked.check_places()
    request = _request(
        name_of(ReinforcementJobName, own, rlorTrainerJobId or f"step-{secrets.token_hex(6)}"),
        asked.dataset,
        asked.training_config,
        asked.loss_config.loss(REINFORCEMENT, asked.reward_weights),
        output_model=asked.output_model,
        display_name=asked.display_name,
        created_by=caller.user,
    )
    return shown(plane, plane.training_runs.request(request)).to_json()


@router.post(f"{path_of(ReinforcementJobName)}/{{job}}:executeTrainStep", include_in_schema=False)
def execute_train_step(caller: Caller, account: str, job: str) -> dict[str, Any]:
    del job
    caller.may(Right.CREATE, account)
    raise Unimplemented(f"executeTrainStep is not offered; {_ONE_STEP}")


@router.post(path_of(PreferenceJobName))
@operation(
    takes=CreatePreferenceJob,
    gives=JobAnswer,
    query=("dpoJobId",),
    refusals=(404, 409, 501),
)
def create_preference_job(
    plane: Plane,
    caller: Caller,
    account: str,
    body: JsonBody,
    dpoJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = body.read(CreatePreferenceJob, wrapped_in="dpoJob")
    asked.check_places()
    request = _request(
        name_of(PreferenceJobName, own, dpoJobId or f"dpoj-{secrets.token_hex(6)}"),
        asked.dataset,
        asked.training_config,
        asked.loss(),
        display_name=asked.display_name,
        created_by=caller.user,
    )
    return shown(plane, plane.training_runs.request(request)).to_json()


@router.get(f"{path_of(PreferenceJobName)}/{{job}}:getMetricsFileEndpoint", include_in_schema=False)
def get_metrics_file(caller: Caller, account: str, job: str) -> dict[str, Any]:
    del job
    caller.may(Right.READ, account)
    raise Unimplemented(
        "getMetricsFileEndpoint is not offered; metrics.jsonl lies beside the adapter, in your own "
        "bucket"
    )


# After the operations above, whose paths those of a job's life would match as well.
add_life(router, ReinforcementJobName)
add_life(router, PreferenceJobName)


def _request(
    name: JobName,
    dataset: str,
    config: TrainingConfig,
    loss: Loss,
    *,
    output_model: str = "",
    display_name: str,
    created_by: str,
) -> JobRequest:
    """
    Raises:
        InvalidRequest: no model, or two, to start from; a name or a setting that cannot be.
        Unimplemented: a setting that the trainer does not honour.
    """
    own = name.account
    config.check_offered()
    base = ModelName.under(CATALOGUE, config.base_model) if config.base_model else None
    warm = (
        own_model(own, config.warm_start_from, "warmStartFrom") if config.warm_start_from else None
    )
    check_one_start(base, warm)
    output = config.output_model or output_model or name.id
    return JobRequest(
        name=name,
        dataset=own_dataset(own, dataset),
        base_model=base,
        warm_start_from=warm,
        output_model=own_model(own, output, "outputModel"),
        settings=config.settings(),
        loss=loss,
        machine=config.machine(),
        given=config.given(),
        display_name=checked_display_name(display_name),
        created_by=created_by,
    )
