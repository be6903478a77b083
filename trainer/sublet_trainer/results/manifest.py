"""
The manifest: what was trained, from what, with what, how it went, and every file with the digests
that Cloud Storage itself computed. Written last and only if there is none: where it exists, the
adapter it names is whole, and it is the job's one result.
"""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import torch

from sublet.handover import TrainedAdapter
from sublet.jobs import PinnedObject, TrainingSettings
from sublet.names import DatasetName, JobName, LeaseName, ModelName, ObjectVersion
from sublet_trainer.data.blocks import RowTally
from sublet_trainer.training import EvalMetrics, StepMetrics

MANIFEST: Final = "manifest.json"
_PACKAGES: Final = ("sublet", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedOn:
    """The one object version that was trained on, as registered, and what became of its rows."""

    name: DatasetName | None
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
    """
    What went through the model in all epochs; `supervised_tokens` of the tokens had a loss. The
    adapter is that of the last step, or of the best evaluation's if training could stop early.
    """

    steps: int
    adapter_of_step: int
    tokens: int
    supervised_tokens: int
    truncated_at_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedFrom:
    """The adapter that was continued."""

    model: ModelName | None
    weights: PinnedObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """On which documents: those of an object of their own, or some held out of the dataset."""

    dataset: DatasetName | None
    object: ObjectVersion | None
    num_documents: int
    losses: Sequence[EvalMetrics]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """
    `accelerator_seconds` are of the steps that led to this result, on every device; what a killed
    attempt did after its last checkpoint is not among them.
    """

    accelerator: str
    accelerator_seconds: float


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
    """
    `folder` is an object name prefix in the output bucket, ending in '/'. `is_compiled` is of the
    layers, at the end of the training (sublet_trainer.compilation).
    """

    format: str = "sublet-manifest-1"
    job: JobName
    output_model: ModelName
    lease: LeaseName
    epoch: int
    adapter: TrainedAdapter
    base_model: BaseModel
    dataset: TrainedOn
    started_from: StartedFrom | None
    evaluated: Evaluated | None
    settings: TrainingSettings
    trained: Amount
    last_step: StepMetrics
    cost: Cost
    device: str
    precision: str
    is_compiled: bool
    software: dict[str, str]
    files: Sequence[ManifestFile] = ()
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


def name_of(device: torch.device) -> str:
    """What is paid for by the second: a GPU's own name, or the machine's processors."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPUs ({platform.machine()})"
