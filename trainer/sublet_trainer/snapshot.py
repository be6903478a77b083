"""
A training's whole state as safetensors, in one part or, of full weights, in several: what is
trained, AdamW's moments, torch's random state, where in the data to go on, and every step's metrics
(these in the last part). Taken between two steps only. A run
that resumes from it on the same CPU ends with the same bits as one that was never stopped; across
machines, and on a GPU, whose kernels add gradients in whatever order they come, with the same
numbers up to rounding, of which docs/how-to/fine-tuning.md says how much that is. It is data and
nothing else: loading runs no code.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from sublet.codec import decode, encode
from sublet.errors import FailedPrecondition
from sublet_trainer.data.blocks import Block, RowTally
from sublet_trainer.data.corpus import Position
from sublet_trainer.models.adamw import AdamW
from sublet_trainer.models.model import Model
from sublet_trainer.models.splitting import put, whole
from sublet_trainer.training import EvalMetrics, StepMetrics, TrainingState

FORMAT: Final = "sublet-checkpoint-4"
_STATE: Final = "state"
_BEST: Final = "best."
_KINDS: Final = ("trained", "first", "second")
"""A parameter, and its moments."""
PART_BYTES: Final = 2**30
"""A part is made in memory, of pieces from all ranks, while the next waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What of the state is no tensor. `belongs_to` is a digest of what may not have changed."""

    format: str
    belongs_to: str
    num_parts: int
    num_steps: int
    position: Position
    num_tokens: int
    num_supervised: int
    blocks: Sequence[Block]
    tallies: dict[int, RowTally]
    metrics: list[StepMetrics]
    evaluations: list[EvalMetrics]
    seconds: float


def digest_of_all(*parts: object) -> str:
    """One digest for what a checkpoint belongs to: settings, dataset generation, base weights."""
    return sha256(b"\n".join(encode(part) for part in parts)).hexdigest()


@dataclass(frozen=True, slots=True)
class Part:
    """One of `of`. Every rank gathers its tensors; whoever keeps it asks for the content."""

    tensors: dict[str, Tensor]
    of: int

    def content(self) -> bytes:
        return safetensors.torch.save({name: one.cpu() for name, one in self.tensors.items()})


def size_of(model: Model) -> int:
    """Bytes of a checkpoint, but for what is small."""
    return sum(_num_bytes(one) for one in model.parameters().values())


def dump(
    model: Model,
    optimiser: AdamW,
    state: TrainingState,
    *,
    blocks: Sequence[Block],
    tallies: dict[int, RowTally],
    belongs_to: str,
) -> Iterator[Part]:
    """The state of the last finished step; there must be one. Every rank takes every part."""
    *others, last = layout = _layout(model)
    cursor = Cursor(
        format=FORMAT,
        belongs_to=belongs_to,
        num_parts=len(layout),
        num_steps=state.num_steps,
        position=state.position,
        num_tokens=state.num_tokens,
        num_supervised=state.num_supervised,
        blocks=blocks,
        tallies=tallies,
        metrics=state.metrics,
        evaluations=state.evaluations,
        seconds=state.seconds,
    )
    for names in others:
        yield Part(_gathered(names, model, optimiser), len(layout))
    # As a tensor, because the header of a safetensors file is not made for megabytes of metrics.
    tensors = {_STATE: torch.frombuffer(bytearray(encode(cursor)), dtype=torch.uint8)}
    tensors |= _random_states(model.device)
    tensors |= {f"{_BEST}{name}": tensor for name, tensor in state.best.items()}
    yield Part(tensors | _gathered(last, model, optimiser), len(layout))


def verify(content: bytes, *, belongs_to: str) -> None:
    """
    Raises:
        FailedPrecondition: it is no checkpoint of ours, or of another training.
    """
    cursor, _ = _parsed(content)
    if (cursor.format, cursor.belongs_to) != (FORMAT, belongs_to):
        raise FailedPrecondition("it is of other settings, another dataset or another base model")


def load(content: bytes, model: Model, optimiser: AdamW) -> tuple[TrainingState, Cursor]:
    """Put back what is in the last part, which has been verified; return the rest."""
    cursor, tensors = _parsed(content)
    _put_back(tensors, model, optimiser)
    optimiser.num_steps = len(cursor.metrics)
    _restore_random_states(tensors, model.device)
    state = TrainingState(
        num_steps=cursor.num_steps,
        position=cursor.position,
        num_tokens=cursor.num_tokens,
        num_supervised=cursor.num_supervised,
        metrics=cursor.metrics,
        evaluations=cursor.evaluations,
        best={
            name.removeprefix(_BEST): tensor
            for name, tensor in tensors.items()
            if name.startswith(_BEST)
        },
        seconds=cursor.seconds,
    )
    return state, cursor


def load_part(content: bytes, model: Model, optimiser: AdamW) -> None:
    """Put back what is in another part."""
    _put_back(safetensors.torch.load(content), model, optimiser)


def _parsed(content: bytes) -> tuple[Cursor, dict[str, Tensor]]:
    try:
        tensors = safetensors.torch.load(content)
        return decode(tensors[_STATE].numpy().tobytes(), Cursor), tensors
    except (SafetensorError, KeyError, msgspec.DecodeError) as problem:
        raise FailedPrecondition(f"it is no checkpoint ({type(problem).__name__})") from None


def _layout(model: Model) -> list[list[str]]:
    """Which parameters are in which part."""
    parts: list[list[str]] = [[]]
    size = 0
    for name, parameter in model.parameters().items():
        num_bytes = _num_bytes(parameter)
        if parts[-1] and size + num_bytes > PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(name)
        size += num_bytes
    return parts


def _num_bytes(parameter: Tensor) -> int:
    return len(_KINDS) * parameter.numel() * parameter.element_size()


def _gathered(names: Sequence[str], model: Model, optimiser: AdamW) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": whole(tensors[name].detach()).cpu()
        for kind, tensors in _by_kind(model, optimiser)
        for name in names
    }


def _put_back(tensors: Mapping[str, Tensor], model: Model, optimiser: AdamW) -> None:
    for kind, own in _by_kind(model, optimiser):
        for name, tensor in own.items():
            if (content := tensors.get(f"{kind}.{name}")) is not None:
                put(tensor, content)


def _by_kind(model: Model, optimiser: AdamW) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
    held: tuple[Mapping[str, Tensor], ...] = (
        model.parameters(),
        optimiser.first,
        optimiser.second,
    )
    return zip(_KINDS, held, strict=True)


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """What dropout drops and the data's order need no state; this is for what comes later."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random_states(tensors: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
