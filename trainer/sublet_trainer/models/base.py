"""
A base model, frozen for an adapter to be trained around or to be trained itself: from a folder of
safetensors and a config.json, without running any code of it. Llama and its like are ours; every
other architecture comes from transformers, which costs seconds at the start and memory, and gives
the same numbers.
"""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
import torch
from safetensors import safe_open
from torch import Tensor, nn

from sublet.errors import FailedPrecondition
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models import llama
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.lora import LoraLinear

_INDEX: Final = "model.safetensors.index.json"


class Base(Protocol):
    """Shapes: T tokens of a row, D hidden width, V vocabulary."""

    @property
    def module(self) -> nn.Module:
        """All of it; its parameters have the names that they have in its files."""

    @property
    def layers(self) -> list[nn.Module]:
        """Its blocks, one of which is computed at a time."""

    @property
    def head_VD(self) -> Tensor: ...

    @property
    def max_positions(self) -> int: ...

    @property
    def num_parameters(self) -> int: ...

    def hidden(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        """The last hidden states, (T, D); `recomputes` takes less memory and a third more work."""

    @property
    def is_compilable(self) -> bool: ...

    def compile_layers(self, compiler: Compiler | None) -> None:
        """As sublet_trainer.models.model.Model has it."""

    def linears(self) -> dict[str, LoraLinear]:
        """Every linear layer of its blocks, by the path that transformers gives it."""


def stored_dtype(folder: Path) -> torch.dtype:
    """Of the weights in their files; fp32 where config.json does not say."""
    config = _config(folder)
    name = config.get("dtype") or config.get("torch_dtype")
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def load_base(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Base:
    """
    A frozen one, with its values.

    Raises:
        FailedPrecondition: it is no folder of a model whose head and attention we know.
    """
    base = open_base(folder, dtype=dtype, device=device)
    if isinstance(base, llama.Llama):
        wanted = dict(base.named_parameters())
        found = {name: one.to(device, dtype) for name, one in tensors_in(folder, wanted.keys())}
        base.load_state_dict(found, assign=True)
    base.module.requires_grad_(False)  # noqa: FBT003  the name says it
    return base


def open_base(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Base:
    """
    Without values (on the device "meta") if it is of ours, so that each of its tensors can be read
    in its turn; else with them.

    Raises:
        FailedPrecondition: its head or attention is not one that we know.
    """
    config = _config(folder)
    if llama.is_known(config):
        return llama.Llama(llama.LlamaShape.of(config))
    from sublet_trainer.models.others import load_other  # noqa: PLC0415  imports transformers

    return load_other(folder, dtype=dtype, device=device)


def tensors_in(folder: Path, wanted: Collection[str]) -> Iterator[tuple[str, Tensor]]:
    """
    Each tensor by its name, as it lies in its file.

    Raises:
        FailedPrecondition: one is not there.
    """
    missing = set(wanted)
    for file in _files(folder):
        with safe_open(folder / file, "pt") as tensors:
            for name in missing & set(tensors.keys()):
                yield name, tensors.get_tensor(name)
                missing.remove(name)
    if missing:
        raise FailedPrecondition(
            f"{folder} lacks {len(missing)} of {len(wanted)} tensors that its config.json names, "
            f"{min(missing)} first; expected all of them"
        )


def _config(folder: Path) -> dict[str, Any]:
    return msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])


def _files(folder: Path) -> list[str]:
    index = folder / _INDEX
    if not index.is_file():
        return ["model.safetensors"]
    return sorted(set(msgspec.json.decode(index.read_bytes())["weight_map"].values()))
