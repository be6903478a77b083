"""
Losses beyond supervised fine-tuning, as jobs ask for them: which method goes with which settings
and with which rows.

Source: https://docs.fireworks.ai/fine-tuning/reinforcement-fine-tuning-models (loss methods)
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.rows import DEFAULT_REWARD, MOST_REWARD, RowFormat

_MAX_DPO_BETA: Final = 0.5


class LossMethod(StrEnum):
    GRPO = "GRPO"
    DAPO = "DAPO"
    GSPO_TOKEN = "GSPO_TOKEN"  # noqa: S105  no password
    DPO = "DPO"
    ORPO = "ORPO"


REINFORCEMENT: Final = (LossMethod.GRPO, LossMethod.DAPO, LossMethod.GSPO_TOKEN)
PREFERENCE: Final = (LossMethod.DPO, LossMethod.ORPO)
"""The first of each is what a job has that names none."""
_DEFAULT_KL_BETA: Final = {LossMethod.GRPO: 0.001}
_DEFAULT_BETA: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """
    `kl_beta` weighs the divergence from the model that was started from; None or 0 is the method's
    own default. `dpo_beta` is DPO's temperature. `reward_weights` are of rewards by name.

    Raises:
        InvalidRequest: method and settings do not go together.
    """

    method: LossMethod
    kl_beta: float | None = None
    dpo_beta: float | None = None
    reward_weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kl_beta and self.method is not LossMethod.GRPO:
            raise InvalidRequest(
                f"loss_config.kl_beta must be 0/unset when method is {self.method}"
            )
        if self.kl_beta is not None and not 0 <= self.kl_beta < math.inf:
            raise InvalidRequest(f"got loss_config.kl_beta {self.kl_beta}; expected 0 or more")
        if self.dpo_beta is None:
            return
        if self.method is not LossMethod.DPO:
            raise InvalidRequest(f"loss_config.dpo must be unset when method is {self.method}")
        if not 0 < self.dpo_beta < _MAX_DPO_BETA:
            raise InvalidRequest(
                f"got loss_config.dpo.beta {self.dpo_beta}; expected more than 0 and less than "
                f"{_MAX_DPO_BETA}"
            )

    @property
    def kl_weight(self) -> float:
        return self.kl_beta or _DEFAULT_KL_BETA.get(self.method, 0.0)

    @property
    def beta(self) -> float:
        """Of DPO, and what ORPO's odds ratio weighs beside its likelihood."""
        return _DEFAULT_BETA if self.dpo_beta is None else self.dpo_beta

    def reward_of(self, rewards: Mapping[str, float]) -> float:
        """
        Raises:
            KeyError: one that the job asks for is not there.
        """
        weights = self.reward_weights or {DEFAULT_REWARD: 1.0}
        return math.fsum(weight * rewards[name] for name, weight in weights.items())


def formats_for(loss: Loss | None) -> tuple[RowFormat, ...]:
    """The rows that a job of that loss trains on; None is a supervised one."""
    if loss is None:
        return (RowFormat.CHAT, RowFormat.COMPLETION)
    return (RowFormat.RL if loss.method in REINFORCEMENT else RowFormat.PREFERENCE,)


def verify_trains_on(rows: RowFormat, loss: Loss | None, *, dataset: str) -> None:
    """
    Raises:
        FailedPrecondition: such rows are for another kind of job; says for which.
    """
    if rows in formats_for(loss):
        return
    instead = {RowFormat.RL: "rlorTrainerJobs", RowFormat.PREFERENCE: "dpoJobs"}
    raise FailedPrecondition(
        f"{dataset} has {rows} rows; this kind of job trains on {' or '.join(formats_for(loss))}: "
        f"use {instead.get(rows, 'supervisedFineTuningJobs')}"
    )


def parse_method(text: str, among: tuple[LossMethod, ...]) -> LossMethod:
    """The method of that name; the first of `among` where none is named."""
    if text in ("", "METHOD_UNSPECIFIED"):
        return among[0]
    if text not in among:
        raise InvalidRequest(
            f"got loss_config.method {text[:40]!r}; expected one of {', '.join(among)}"
        )
    return LossMethod(text)


def parse_reward_weights(texts: Iterable[str]) -> Mapping[str, float]:
    """
    `NAME=WEIGHT`, or a NAME that weighs 1; no text at all is the default reward's name.

    Raises:
        InvalidRequest: a weight is no number of use, or a name is empty or there twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        weight = _weight(number) if equals else 1.0
        if not name.strip() or weight is None or name.strip() in weights:
            raise InvalidRequest(
                f"got rewardWeights {text[:60]!r}; expected NAME or NAME=WEIGHT, each name once"
            )
        weights[name.strip()] = weight
    return weights or {DEFAULT_REWARD: 1.0}


def _weight(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= MOST_REWARD else None
