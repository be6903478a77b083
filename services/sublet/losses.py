"""
Losses beyond supervised fine-tuning, as jobs ask for them: which method goes with which settings.

Source: https://docs.fireworks.ai/fine-tuning/reinforcement-fine-tuning-models (loss methods)
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sublet.errors import InvalidRequest

DEFAULT_REWARD: Final = "score"
_MAX_DPO_BETA: Final = 0.5


class LossMethod(StrEnum):
    GRPO = "GRPO"
    DAPO = "DAPO"
    GSPO_TOKEN = "GSPO_TOKEN"  # noqa: S105  no password
    DPO = "DPO"
    ORPO = "ORPO"


REINFORCEMENT: Final = (LossMethod.GRPO, LossMethod.DAPO, LossMethod.GSPO_TOKEN)
PREFERENCE: Final = (LossMethod.DPO, LossMethod.ORPO, LossMethod.GRPO)
"""The first of each is what a job has that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """
    `kl_beta` weighs the divergence from the model that was started from; None is the method's own
    default. `dpo_beta` is DPO's temperature.

    Raises:
        InvalidRequest: method and settings do not go together.
    """

    method: LossMethod
    kl_beta: float | None = None
    dpo_beta: float | None = None

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
        InvalidRequest: a weight is no finite number, or a name is empty or there twice.
    """
    weights: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        weight = _finite(number) if equals else 1.0
        if not name.strip() or weight is None or name.strip() in weights:
            raise InvalidRequest(
                f"got rewardWeights {text[:60]!r}; expected NAME or NAME=WEIGHT, each name once"
            )
        weights[name.strip()] = weight
    return weights or {DEFAULT_REWARD: 1.0}


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
