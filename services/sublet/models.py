"""Models: base models of the catalogue, and adapters that jobs wrote into their owners' buckets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.jobs import PinnedObject, TrainingSettings
from sublet.names import AccountName, JobName, ModelName

CATALOGUE: Final = AccountName.of("fireworks")
"""The read-only account that every client expects base models in."""


class ModelKind(StrEnum):
    HF_BASE_MODEL = "HF_BASE_MODEL"
    HF_PEFT_ADDON = "HF_PEFT_ADDON"


class ModelState(StrEnum):
    UPLOADING = "UPLOADING"
    READY = "READY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """
    What a PEFT adapter is made of, as its manifest says; `weights` is its file of tensors,
    `base_sha256` of the base model's.
    """

    base_model: ModelName
    rank: int
    target_modules: tuple[str, ...]
    weights: PinnedObject | None = None
    base_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """
    `uri` is where the files lie: a folder of the owner's bucket, or of the trainer's model
    directory.
    """

    name: ModelName
    display_name: str
    kind: ModelKind
    state: ModelState
    uri: str
    adapter: Adapter | None = None
    job: JobName | None = None
    settings: TrainingSettings | None = None
    """What the adapter was trained with; a job that continues from it must use the same."""
    created_at: datetime

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.name.account,
            "name": self.name,
            "display_name": self.display_name,
            "kind": self.kind,
            "state": self.state,
            "created_at": self.created_at.isoformat(),
        }


CONTINUED: Final = (
    *("lora_rank", "learning_rate", "max_context_length", "epochs", "batch_size"),
    *("lora_alpha", "target_modules", "use_rslora", "use_dora"),
)
"""What must be as it was when an adapter is trained further: Fireworks' five, and its shape."""
_NOT_INHERITED: Final = {"eval_auto_carveout": False, "early_stop": False}
"""What is about another dataset than the one that comes now."""


def settings_to_continue(model: Model, given: Mapping[str, Any]) -> TrainingSettings:
    """
    The settings of a job that trains `model` further: its own, and what else the caller gives.

    Args:
        given: the settings that the caller named; the others are inherited.

    Raises:
        FailedPrecondition: the model is not there yet.
        InvalidRequest: it is no adapter of ours, or a setting differs; says stored and given value.

    Source: https://docs.fireworks.ai/fine-tuning/secure-fine-tuning (the note on LoRA checkpoints)
    """
    if model.kind is not ModelKind.HF_PEFT_ADDON:
        raise InvalidRequest(f"{model.name} is no adapter to continue from; give it as baseModel")
    if model.state is not ModelState.READY:
        raise FailedPrecondition(f"{model.name} is {model.state}; wait for {model.job}")
    if model.adapter is None or model.adapter.weights is None or model.settings is None:
        raise InvalidRequest(
            f"{model.name} does not say what it was trained with and where its tensors lie; "
            "train it anew"
        )
    stored = {name: getattr(model.settings, name) for name in CONTINUED}
    stored["lora_alpha"] = model.settings.alpha
    different = [
        f"{name}: stored {value}, given {given[name]}"
        for name, value in stored.items()
        if name in given and given[name] != value
    ]
    if different:
        raise InvalidRequest(
            f"continuing from {model.name} needs the settings that it was trained with; "
            f"{'; '.join(different)}; leave them out to use the stored ones"
        )
    return replace(model.settings, **{**_NOT_INHERITED, **given})
