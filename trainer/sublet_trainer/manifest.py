"""
The manifest: what was trained, from what, with what, how it went, and every file with the digests
that Cloud Storage itself computed. Written last and only if there is none: where it exists, the
adapter it names is whole, and it is the job's one result.
"""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from sublet.handover import TrainedAdapter
from sublet.jobs import TrainingSettings
from sublet.names import JobName, LeaseName, ModelName, ObjectVersion
from sublet_trainer.blocks import RowTally
from sublet_trainer.training import StepMetrics

MANIFEST: Final = "manifest.json"
_PACKAGES: Final = ("sublet", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """The one object version that was read, as registered, and what became of its rows."""

    object: ObjectVersion
    crc32c: str
    size_bytes: int
    rows: RowTally


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """`sha256` is of its model.safetensors."""

    name: ModelName
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """What went through the model in all epochs; `supervised_tokens` of the tokens had a loss."""

    steps: int
    tokens: int
    supervised_tokens: int
    truncated_at_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestFile:
    """`name` lies under the manifest's folder; digests are base64, as Cloud Storage gives them."""

    name: str
    size_bytes: int
    md5: str
    crc32c: str
    generation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """`folder` is an object name prefix in the output bucket, ending in '/'."""

    format: str = "sublet-manifest-1"
    job: JobName
    output_model: ModelName
    lease: LeaseName
    epoch: int
    adapter: TrainedAdapter
    base_model: BaseModel
    dataset: TrainedOn
    settings: TrainingSettings
    trained: Amount
    last_step: StepMetrics
    device: str
    precision: str
    software: dict[str, str]
    files: Sequence[ManifestFile]
    written_at: datetime


def software() -> dict[str, str]:
    """Versions of the code that trained; a checkout that was never installed says so."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
