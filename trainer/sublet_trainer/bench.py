"""
What every rank of a training sets up alike, from the order alone: the base model's folder, the
model in the type that this machine multiplies, and its optimiser.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from sublet.errors import FailedPrecondition
from sublet.handover import TrainingOrder
from sublet_trainer.catalogue.base_models import digest_of
from sublet_trainer.models.adamw import AdamW
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.base import stored_dtype
from sublet_trainer.models.compiler import Compiler, TorchCompiler
from sublet_trainer.models.model import Model
from sublet_trainer.models.precision import NAMES, dtype_for
from sublet_trainer.processes.cores import Cores
from sublet_trainer.processes.ranks import Ranks
from sublet_trainer.results.manifest import BaseModel
from sublet_trainer.training import new_optimiser, rows_at_once

TOO_SMALL_FOR_THREADS: Final = 10_000_000
"""Parameters of a base model whose products are done before a second thread has woken up; on busy
cores the threads of a 100,000-parameter model waited for each other for seconds a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    order: TrainingOrder
    folder: Path
    base: BaseModel
    model: Model
    optimiser: AdamW
    cores: Cores
    compiler: Compiler | None
    """Of layers, where a trial of it is worth its time: on a GPU."""
    max_tokens: int
    precision: str

    @classmethod
    def set_up(cls, order: TrainingOrder, ranks: Ranks, *, models: Path) -> "Bench":
        """
        Raises:
            NotFound: the base model is not among `models`.
            FailedPrecondition: it does something that we do not know.
        """
        settings = order.settings
        folder = models / order.base_model.id
        base = BaseModel(name=order.base_model, sha256=digest_of(folder))
        is_bf16 = dtype_for(stored_dtype(folder), ranks.device) == torch.bfloat16
        dtype = torch.bfloat16 if ranks.tell(is_bf16, bool) else torch.float32
        model = _model(folder, order, ranks, dtype=dtype)
        if model.num_parameters < TOO_SMALL_FOR_THREADS:
            torch.set_num_threads(1)
        return cls(
            order=order,
            folder=folder,
            base=base,
            model=model,
            optimiser=new_optimiser(model, settings),
            cores=Cores(rows_at_once(model, settings)),
            compiler=TorchCompiler() if ranks.device.type == "cuda" else None,
            max_tokens=min(settings.max_context_length, model.max_positions),
            precision=NAMES[dtype],
        )

    def start(self, content: bytes, ranks: Ranks) -> None:
        """
        Continue from an adapter, if the first rank has read the tensors of one.

        Raises:
            FailedPrecondition: it belongs to another base model, or is of another shape.
        """
        expected = self.order.base_sha256
        if expected not in ("", self.base.sha256):
            raise FailedPrecondition(
                f"{self.base.name} is not the model that {self.order.warm_start_from} was trained "
                f"around: got weights of SHA-256 {self.base.sha256}, expected {expected}; train "
                "from the base model anew"
            )
        if told := ranks.tell_bytes(content):
            self.model.continue_from(told)


def _model(folder: Path, order: TrainingOrder, ranks: Ranks, *, dtype: torch.dtype) -> Model:
    if order.settings.lora_rank:
        return LoraModel.of(folder, order.settings, device=ranks.device, dtype=dtype)
    from sublet_trainer.models.full import FullModel  # noqa: PLC0415  half a second of imports

    return FullModel(folder, device=ranks.device, dtype=dtype)
