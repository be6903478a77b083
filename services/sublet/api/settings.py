"""Hyper-parameters as the API names them."""

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from sublet.api.answers import Answer
from sublet.jobs import RANGES, SCHEDULERS, TrainingSettings


def _within(name: str) -> msgspec.Meta:
    """For the document; it is TrainingSettings that refuses, in words."""
    least, most = RANGES[name]
    return msgspec.Meta(extra_json_schema={"minimum": least, "maximum": most})


_ONE_OF_SCHEDULERS = msgspec.Meta(extra_json_schema={"enum": [*SCHEDULERS]})


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFields:
    """
    What is not given has the default of TrainingSettings. Beyond Fireworks' own, the adapter's
    shape has PEFT's names, in camel case.
    """

    epochs: Annotated[int | None, _within("epochs")] = None
    learning_rate: Annotated[float | None, _within("learning_rate")] = None
    lora_rank: Annotated[int | None, _within("lora_rank")] = None
    max_context_length: Annotated[int | None, _within("max_context_length")] = None
    batch_size: Annotated[int | None, _within("batch_size")] = None
    learning_rate_warmup_steps: Annotated[int | None, _within("learning_rate_warmup_steps")] = None
    learning_rate_scheduler: Annotated[str | None, _ONE_OF_SCHEDULERS] = None
    learning_rate_min_lr_ratio: Annotated[float | None, _within("learning_rate_min_lr_ratio")] = (
        None
    )
    optimizer_weight_decay: Annotated[float | None, _within("weight_decay")] = None
    lora_alpha: Annotated[int | None, _within("lora_alpha")] = None
    lora_dropout: Annotated[float | None, _within("lora_dropout")] = None
    target_modules: list[str] | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    drop_long_rows: bool | None = None
    eval_auto_carveout: bool | None = None
    early_stop: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that the caller named, as TrainingSettings calls them."""
        named: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "lora_rank": self.lora_rank,
            "max_context_length": self.max_context_length,
            "batch_size": self.batch_size,
            "learning_rate_warmup_steps": self.learning_rate_warmup_steps,
            "learning_rate_scheduler": self.learning_rate_scheduler,
            "learning_rate_min_lr_ratio": self.learning_rate_min_lr_ratio,
            "weight_decay": self.optimizer_weight_decay,
            "lora_alpha": self.lora_alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": None if self.target_modules is None else (*self.target_modules,),
            "use_rslora": self.use_rslora,
            "use_dora": self.use_dora,
            "drops_long_rows": self.drop_long_rows,
            "eval_auto_carveout": self.eval_auto_carveout,
            "early_stop": self.early_stop,
        }
        return {name: value for name, value in named.items() if value is not None}

    def settings(self) -> TrainingSettings:
        return TrainingSettings(**self.given())


class SettingsAnswer(Answer, kw_only=True):
    """The settings of whatever is shown; `settings_shown` gives its fields."""

    epochs: int
    learning_rate: float
    lora_rank: int
    max_context_length: int
    batch_size: int
    learning_rate_warmup_steps: int
    learning_rate_scheduler: str
    learning_rate_min_lr_ratio: float
    optimizer_weight_decay: float
    lora_alpha: int
    lora_dropout: float
    target_modules: list[str]
    use_rslora: bool
    use_dora: bool
    drop_long_rows: bool
    eval_auto_carveout: bool
    early_stop: bool


def settings_shown(settings: TrainingSettings) -> dict[str, Any]:
    return {
        "epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lora_rank": settings.lora_rank,
        "max_context_length": settings.max_context_length,
        "batch_size": settings.batch_size,
        "learning_rate_warmup_steps": settings.learning_rate_warmup_steps,
        "learning_rate_scheduler": settings.learning_rate_scheduler,
        "learning_rate_min_lr_ratio": settings.learning_rate_min_lr_ratio,
        "optimizer_weight_decay": settings.weight_decay,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.lora_dropout,
        "target_modules": [*settings.target_modules],
        "use_rslora": settings.use_rslora,
        "use_dora": settings.use_dora,
        "drop_long_rows": settings.drops_long_rows,
        "eval_auto_carveout": settings.eval_auto_carveout,
        "early_stop": settings.early_stop,
    }
