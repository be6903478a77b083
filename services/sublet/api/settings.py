"""Hyper-parameters as the API names them."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from sublet.jobs import RANGES, TrainingSettings


def _within(name: str) -> msgspec.Meta:
    """For the document; it is TrainingSettings that refuses, in words."""
    least, most = RANGES[name]
    return msgspec.Meta(extra_json_schema={"minimum": least, "maximum": most})


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFields:
    """What is not given has the default of TrainingSettings."""

    epochs: Annotated[int | None, _within("epochs")] = None
    learning_rate: Annotated[float | None, _within("learning_rate")] = None
    lora_rank: Annotated[int | None, _within("lora_rank")] = None
    max_context_length: Annotated[int | None, _within("max_context_length")] = None
    batch_size: Annotated[int | None, _within("batch_size")] = None
    learning_rate_warmup_steps: Annotated[int | None, _within("learning_rate_warmup_steps")] = None
    optimizer_weight_decay: Annotated[float | None, _within("weight_decay")] = None

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
