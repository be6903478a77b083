"""
Writes a safetensors file one tensor at a time, so that a model's weights are never in memory at
once, and rounds to bf16, which numpy does not know. For base models only; adapters are small.

Source: https://huggingface.co/docs/safetensors/index#format
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

_NUM_BYTES = {"F32": 4, "BF16": 2}


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """`values` is called once, when the tensor's turn comes; it gives fp32 of that shape."""

    shape: tuple[int, ...]
    values: Callable[[], NDArray[np.float32]]


def write_safetensors(path: Path, tensors: Mapping[str, PlannedTensor], *, dtype: str) -> None:
    """Args: dtype: "F32" or "BF16"."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + prod(tensor.shape) * _NUM_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": (start, end)}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for tensor in tensors.values():
            values = np.ascontiguousarray(tensor.values())
            file.write((values if dtype == "F32" else to_bf16(values)).data)


def to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round finite fp32 to bf16, ties to even; the bits, since numpy has no such type."""
    bits = values.view(np.uint32)
    rounding = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return ((bits + rounding) >> np.uint32(16)).astype(np.uint16)
