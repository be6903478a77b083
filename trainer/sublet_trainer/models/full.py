"""
A model all of whose weights are trained. It is split between the ranks by FSDP2, layer by layer; a
single process is one rank, so that there is one way to compute it. The weights and their moments
are fp32, and so are sums of gradients; products are in the type that
sublet_trainer.models.precision says.

Memory of a rank, for P parameters on W ranks: 16 P / W bytes (weight, gradient, two moments), a
layer and the head in the type of the products, and a row's activations. So 135 million parameters
need 2.2 GB on one device, and 8 billion need 16 GB on each of eight.

Shapes: S supervised tokens of a row.

Source: https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html;
https://huggingface.co/docs/safetensors (the files), huggingface_hub's index of shards
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from sublet.errors import FailedPrecondition
from sublet.names import ModelName
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.base import Base, open_base, stored_dtype, tensors_in
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.loss import trained_log_probs
from sublet_trainer.models.splitting import put, whole

FILE_BYTES: Final = 5 * 10**9
"""The customary size of a shard; one at a time is made in memory."""
_COPIED: Final = ("config.json", "generation_config.json")
_PREFIX: Final = "base."
_ONLY_SUPERVISED: Final = (
    "full weights are trained on supervised rows only: other losses need the model that training "
    "started from beside it; give loraRank"
)
_NAMES: Final = {torch.bfloat16: "BF16", torch.float32: "F32"}


class FullModel:
    """
    Args:
        folder: a base model in transformers' layout; nothing is fetched, no code of it is run.
        dtype: of the products.

    Raises:
        FailedPrecondition: the base model does something that we do not know.
    """

    is_split: Final = True
    is_compilable: Final = False  # FSDP2 takes parameters away and brings them back around a layer
    is_compiled: Final = False
    target_modules: Final[tuple[str, ...]] = ()

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self._folder = folder
        self._written_dtype = stored_dtype(folder)
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)

        def split(part: nn.Module) -> None:
            pieces = fully_shard(part, mesh=mesh, mp_policy=policy)
            # Gradients are summed, not averaged: the loss is divided by what is the whole step's.
            pieces.set_gradient_divide_factor(1.0)
            pieces.set_force_sum_reduction_for_comms(enable=True)

        base = open_base(folder, dtype=torch.float32, device=device)
        self._net = _LogProbs(base).requires_grad_()
        for layer in base.layers:
            split(layer)
        split(self._net)
        self._fill()
        self.max_positions = base.max_positions
        self.num_parameters = sum(one.numel() for one in self.parameters().values())

    def compile_layers(self, compiler: Compiler | None) -> None:
        assert compiler is None

    def parameters(self) -> dict[str, nn.Parameter]:
        return {
            name.removeprefix(_PREFIX): parameter
            for name, parameter in self._net.named_parameters()
        }

    def log_probs(
        self, row: PackedRow, *, recomputes: bool = False, entropy_S: Tensor | None = None
    ) -> Tensor:
        """
        The log-probability of each supervised token of a row, in nats; fp32 (S,).

        Raises:
            FailedPrecondition: the entropies are asked for.
        """
        if entropy_S is not None:
            raise FailedPrecondition(_ONLY_SUPERVISED)
        logp_S: Tensor = self._net(row, recomputes=recomputes)
        return logp_S

    def begin_step(self, step: int) -> None:
        """Nothing is drawn."""

    def continue_from(self, content: bytes) -> None:  # noqa: ARG002  there is no adapter
        raise FailedPrecondition("full weights do not continue from an adapter")

    def put(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters().items():
            put(parameter, values[name])

    def copied(self) -> dict[str, Tensor]:
        return {name: whole(one.detach()).cpu() for name, one in self.parameters().items()}

    def evaluating(self) -> torch.no_grad:
        return torch.no_grad()

    @contextmanager
    def as_reference(self) -> Iterator[None]:
        raise FailedPrecondition(_ONLY_SUPERVISED)
        yield

    def each_file(self, base_model: ModelName) -> Iterator[tuple[str, bytes | bytearray]]:  # noqa: ARG002
        """A folder that transformers loads, of the type that the base's is; each file in turn."""
        shards = self._shards()
        names = [_file_name(number, len(shards)) for number in range(1, len(shards) + 1)]
        for file, shard in zip(names, shards, strict=True):
            yield file, self._shard(shard)
        if len(shards) > 1:
            size_bytes = self.num_parameters * self._written_dtype.itemsize
            index = _index(dict(zip(names, shards, strict=True)), size_bytes=size_bytes)
            yield "model.safetensors.index.json", index
        for file in _COPIED:
            if (self._folder / file).is_file():
                yield file, (self._folder / file).read_bytes()

    def _fill(self) -> None:
        parameters = self.parameters()
        if not any(parameter.is_meta for parameter in parameters.values()):
            return
        self._net.to_empty(device=self.device)
        for name, content in tensors_in(self._folder, parameters.keys()):
            put(self.parameters()[name], content)

    def _shards(self) -> list[list[str]]:
        """Names of parameters, in files of at most FILE_BYTES, but for one that is larger."""
        shards: list[list[str]] = [[]]
        size = 0
        for name, parameter in self.parameters().items():
            num_bytes = parameter.numel() * self._written_dtype.itemsize
            if shards[-1] and size + num_bytes > FILE_BYTES:
                shards.append([])
                size = 0
            shards[-1].append(name)
            size += num_bytes
        return shards

    def _shard(self, names: Sequence[str]) -> bytearray:
        """A safetensors file, made in place from each rank's pieces; empty but in the first."""
        parameters = self.parameters()
        header, starts, end = _header(
            {name: parameters[name] for name in names}, self._written_dtype
        )
        keeps = torch.distributed.get_rank() == 0
        file = bytearray(end) if keeps else bytearray()
        file[: len(header)] = header if keeps else b""
        for name in names:
            tensor = whole(parameters[name].detach())
            if keeps:
                content = tensor.to(self._written_dtype).cpu().contiguous()
                start = starts[name]
                place = memoryview(file)[start : start + content.nbytes]
                place[:] = content.view(-1).view(torch.uint8).numpy().data
        return file


class _LogProbs(nn.Module):
    """The whole computation as one module, within whose forward pass the head is there whole."""

    def __init__(self, base: Base) -> None:
        super().__init__()
        self.base = base.module
        self._hidden = base.hidden
        self._head: Callable[[], Tensor] = lambda: base.head_VD

    def forward(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        hidden_TD = self._hidden(row, recomputes=recomputes)
        return trained_log_probs(hidden_TD[row.before_S], self._head(), row.targets_S)


def _header(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[bytes, dict[str, int], int]:
    """The beginning of a safetensors file, where each tensor starts in it, and its length."""
    told: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, tensor in tensors.items():
        starts[name], end = end, end + tensor.numel() * dtype.itemsize
        told[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": (starts[name], end),
        }
    text = msgspec.json.encode(told)
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: len(header) + at for name, at in starts.items()}, len(header) + end


def _file_name(number: int, of: int) -> str:
    return "model.safetensors" if of == 1 else f"model-{number:05d}-of-{of:05d}.safetensors"


def _index(shards: Mapping[str, Sequence[str]], *, size_bytes: int) -> bytes:
    index = {
        "metadata": {"total_size": size_bytes},
        "weight_map": {name: file for file, names in shards.items() for name in names},
    }
    return msgspec.json.format(msgspec.json.encode(index), indent=2)
