"""
The frozen base model that an adapter is trained around: from a folder of safetensors and a
config.json, without running any code of it. Llama and its like are ours; every other architecture
comes from transformers, which costs seconds at the start and memory, and gives the same numbers.
"""

from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sublet.errors import FailedPrecondition
from sublet_trainer import llama
from sublet_trainer.lora import LoraLinear
from sublet_trainer.packing import PackedRow

_INDEX: Final = "model.safetensors.index.json"


class FrozenBase(Protocol):
    """Shapes: T tokens of a row, D hidden width, V vocabulary."""

    @property
    def head_VD(self) -> Tensor: ...

    @property
    def max_positions(self) -> int: ...

    @property
    def num_parameters(self) -> int: ...

    def hidden(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        """The last hidden states, (T, D); `recomputes` takes less memory and a third more work."""

    def linears(self) -> dict[str, LoraLinear]:
        """Every linear layer of its blocks, by the path that transformers gives it."""


def stored_dtype(folder: Path) -> torch.dtype:
    """Of the weights in their files; fp32 where config.json does not say."""
    config = _config(folder)
    name = config.get("dtype") or config.get("torch_dtype")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def load_base(folder: Path, *, dtype: torch.dtype, device: torch.device) -> FrozenBase:
    """
    Raises:
        FailedPrecondition: it is no folder of a model whose head and attention we know.
    """
    config = _config(folder)
    if not llama.is_known(config):
        from sublet_trainer.others import load_other  # noqa: PLC0415  imports transformers

        return load_other(folder, dtype=dtype, device=device)
    base = llama.Llama(llama.LlamaShape.of(config))
    _fill(base, folder, dtype=dtype, device=device)
    return base


def _config(folder: Path) -> dict[str, Any]:
    return msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])


def _fill(base: nn.Module, folder: Path, *, dtype: torch.dtype, device: torch.device) -> None:
    wanted = dict(base.named_parameters())
    found: dict[str, Tensor] = {}
    for file in _files(folder):
        with safe_open(folder / file, "pt") as tensors:
            for name in wanted.keys() & set(tensors.keys()):
                found[name] = tensors.get_tensor(name).to(device, dtype)
    if missing := sorted(wanted.keys() - found.keys()):
        raise FailedPrecondition(
            f"{folder} lacks {len(missing)} of {len(wanted)} tensors that its config.json names, "
            f"{missing[0]} first; expected all of them"
        )
    base.load_state_dict(found, assign=True)
    base.requires_grad_(False)  # noqa: FBT003  the name says it


def _files(folder: Path) -> list[str]:
    index = folder / _INDEX
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(msgspec.json.decode(index.read_bytes())["weight_map"].values()))
