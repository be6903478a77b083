"""
Reinforcement steps and preference jobs: what is asked for is read and held to its rules, and then
refused, since no trainer of ours has these losses yet. Where one has, the last line of each becomes
a use case.
"""

from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter

from sublet.accounts import Right
from sublet.api.control_plane import Caller, JsonBody
from sublet.api.jobs import own_dataset, own_model
from sublet.api.not_offered import USE
from sublet.api.paths import name_of
from sublet.api.settings import SettingsFields
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
from sublet.names import AccountName, JobName, ModelName
from sublet.training_runs import check_one_start

router = APIRouter()


@dataclass(frozen=True, slots=True, kw_only=True)
class DpoFields:
    beta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFields:
    method: str = ""
    kl_beta: float | None = None
    dpo: DpoFields = field(default_factory=DpoFields)

    def loss(self, among: tuple[LossMethod, ...]) -> Loss:
        return Loss(
            method=parse_method(self.method, among),
            kl_beta=self.kl_beta,
            dpo_beta=self.dpo.beta,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(SettingsFields):
    base_model: str = ""
    warm_start_from: str = ""
    output_model: str = ""

    def check(self, account: AccountName) -> None:
        """
        Raises:
            InvalidRequest: no model, or two, to start from; a name or a setting that cannot be.
        """
        base = ModelName.under(CATALOGUE, self.base_model) if self.base_model else None
        warm = self.warm_start_from and own_model(account, self.warm_start_from, "warmStartFrom")
        check_one_start(base, warm or None)
        if self.output_model:
            own_model(account, self.output_model, "outputModel")
        self.settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePreferenceJob:
    dataset: str
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    loss_config: LossFields = field(default_factory=LossFields)
    display_name: str = ""

    def check(self, account: AccountName) -> None:
        own_dataset(account, self.dataset)
        self.loss_config.loss(PREFERENCE)
        self.training_config.check(account)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateReinforcementStep:
    """`dataset` may come later to a job that is kept alive."""

    dataset: str = ""
    output_model: str = ""
    training_config: TrainingConfig = field(default_factory=TrainingConfig)
    reward_weights: list[str] = field(default_factory=list)
    loss_config: LossFields = field(default_factory=LossFields)
    display_name: str = ""
    keep_alive: bool = False
    service_mode: bool = False

    def check(self, account: AccountName) -> None:
        """
        Raises:
            InvalidRequest: a field or a combination that cannot be.
            Unimplemented: it is to serve steps of the caller's own.
        """
        if self.service_mode and self.training_config.lora_rank:
            raise InvalidRequest(
                f"got serviceMode and loraRank {self.training_config.lora_rank}: "
                "`loraRank>0` is rejected in service mode"
            )
        if self.service_mode:
            raise Unimplemented(f"serviceMode is not offered; {USE['trainingSessions']}")
        if not (self.dataset or self.keep_alive):
            raise InvalidRequest("dataset is required, unless the job is kept alive for later ones")
        if self.dataset:
            own_dataset(account, self.dataset)
        if self.output_model:
            own_model(account, self.output_model, "outputModel")
        parse_reward_weights(self.reward_weights)
        self.loss_config.loss(REINFORCEMENT)
        self.training_config.check(account)


@router.post("/v1/accounts/{account}/rlorTrainerJobs", include_in_schema=False)
def create_reinforcement_step(
    caller: Caller,
    account: str,
    body: JsonBody,
    rlorTrainerJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = body.read(CreateReinforcementStep, wrapped_in="rlorTrainerJob")
    if rlorTrainerJobId:
        name_of(JobName, own, rlorTrainerJobId)
    asked.check(own)
    raise Unimplemented(f"rlorTrainerJobs are not offered; {USE['rlorTrainerJobs']}")


@router.post("/v1/accounts/{account}/dpoJobs", include_in_schema=False)
def create_preference_job(
    caller: Caller,
    account: str,
    body: JsonBody,
    dpoJobId: str = "",  # noqa: N803  the wire's
) -> dict[str, Any]:
    own = caller.may(Right.CREATE, account)
    asked = body.read(CreatePreferenceJob, wrapped_in="dpoJob")
    if dpoJobId:
        name_of(JobName, own, dpoJobId)
    asked.check(own)
    raise Unimplemented(f"dpoJobs are not offered; {USE['dpoJobs']}")
