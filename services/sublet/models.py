"""Models: base models of the catalogue, and adapters that jobs wrote into their owners' buckets."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

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
    """What a PEFT adapter is made of, as its manifest says."""

    base_model: ModelName
    rank: int
    target_modules: tuple[str, ...]


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
    created_at: datetime

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {"account": self.name.account, "created_at": self.created_at.isoformat()}
