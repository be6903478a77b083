"""
Reads a GGUF version 3 file: its key-value header, and tensors of the three kinds that
SmolLM2-135M-Instruct.Q4_1.gguf is made of, dequantised to fp32. Nothing is executed and nothing
else of the format is known; a tensor of any other kind is refused by name.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (layout);
https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c (dequantisation)
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sublet.errors import InvalidRequest

_MAGIC: Final = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?",
    10: "<Q", 11: "<q", 12: "<d",
}  # fmt: skip
_F32, _Q4_1, _Q8_0 = 0, 3, 8
_BLOCK: Final = 32
"""Weights that share one scale."""


@dataclass(frozen=True, slots=True)
class _TensorPlace:
    shape: tuple[int, ...]
    kind: int
    offset: int


class GgufFile:
    """The header is parsed at once, tensors when they are asked for; the file stays mapped."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at = 0
        magic, version = self._bytes[:4], struct.unpack_from("<I", self._bytes, 4)[0]
        if magic != _MAGIC or version != 3:
            raise InvalidRequest(f"{path} begins with {magic!r} version {version}; expected GGUF 3")
        self._at = 8
        num_tensors, num_fields = self._scalar("<Q"), self._scalar("<Q")
        self.fields: dict[str, Any] = {}
        for _ in range(num_fields):
            name = self._string()
            self.fields[name] = self._value(self._scalar("<I"))
        self._places = dict(self._tensor_place() for _ in range(num_tensors))
        alignment = self.fields.get("general.alignment", 32)
        self._data_start = -(-self._at // alignment) * alignment

    @property
    def tensor_names(self) -> list[str]:
        return list(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._places[name].shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        """
        One tensor in fp32, its axes in PyTorch's order: (out, in) for a linear layer.

        Raises:
            InvalidRequest: it is stored in a way that is not one of F32, Q4_1 and Q8_0.
        """
        place = self._places[name]
        num_weights = int(np.prod(place.shape))
        dequantise = {_F32: _from_f32, _Q4_1: _from_q4_1, _Q8_0: _from_q8_0}.get(place.kind)
        if dequantise is None:
            raise InvalidRequest(f"{name} has GGUF type {place.kind}; expected F32, Q4_1 or Q8_0")
        weights = dequantise(self._bytes, num_weights, self._data_start + place.offset)
        return weights.reshape(place.shape)

    def _tensor_place(self) -> tuple[str, _TensorPlace]:
        name = self._string()
        num_axes = self._scalar("<I")
        shape = tuple(self._scalar("<Q") for _ in range(num_axes))[
            ::-1
        ]  # ggml counts from the inside
        return name, _TensorPlace(shape, self._scalar("<I"), self._scalar("<Q"))

    def _scalar(self, form: str) -> Any:  # noqa: ANN401  whatever the header says
        (value,) = struct.unpack_from(form, self._bytes, self._at)
        self._at += struct.calcsize(form)
        return value

    def _string(self) -> str:
        length = self._scalar("<Q")
        self._at += length
        return self._bytes[self._at - length : self._at].decode()

    def _value(self, kind: int) -> Any:  # noqa: ANN401
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            kind, length = self._scalar("<I"), self._scalar("<Q")
            return [self._value(kind) for _ in range(length)]
        return self._scalar(_SCALARS[kind])


def _from_f32(data: mmap.mmap, num_weights: int, offset: int) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4", num_weights, offset)


def _from_q4_1(data: mmap.mmap, num_weights: int, offset: int) -> NDArray[np.float32]:
    """Block: fp16 scale, fp16 minimum, 16 bytes; low nibbles are weights 0-15, high ones 16-31."""
    layout = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("nibbles", "u1", _BLOCK // 2)])
    blocks = np.frombuffer(data, layout, num_weights // _BLOCK, offset)
    levels = np.concatenate((blocks["nibbles"] & 0xF, blocks["nibbles"] >> 4), axis=1)
    scale = blocks["scale"].astype(np.float32)[:, None]
    minimum = blocks["minimum"].astype(np.float32)[:, None]
    return levels.astype(np.float32) * scale + minimum


def _from_q8_0(data: mmap.mmap, num_weights: int, offset: int) -> NDArray[np.float32]:
    """Block: fp16 scale, 32 signed bytes."""
    layout = np.dtype([("scale", "<f2"), ("levels", "i1", _BLOCK)])
    blocks = np.frombuffer(data, layout, num_weights // _BLOCK, offset)
    return blocks["levels"].astype(np.float32) * blocks["scale"].astype(np.float32)[:, None]
