"""
A training's whole state as one safetensors object: the adapter, AdamW's moments, torch's random
state, where in the data to go on, and every step's metrics. Taken between two steps only. A run
that resumes from it on the same machine ends with the same bits as one that was never stopped;
across machines, with the same numbers up to rounding. It is data and nothing else: loading runs no
code.
"""

from collections.abc import Sequence
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
from sublet_trainer.adapter import LoraModel
from sublet_trainer.blocks import Block, RowTally
from sublet_trainer.corpus import Position
from sublet_trainer.training import StepMetrics, TrainingState

FORMAT: Final = "sublet-checkpoint-2"
_STATE: Final = "state"
_MOMENTS: Final = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """What of the state is no tensor. `belongs_to` is a digest of what may not have changed."""

    format: str
    belongs_to: str
    num_steps: int
    position: Position
    num_tokens: int
    num_supervised: int
    blocks: Sequence[Block]
    tallies: dict[int, RowTally]
    metrics: list[StepMetrics]


def digest_of_all(*parts: object) -> str:
    """One digest for what a checkpoint belongs to: settings, dataset generation, base weights."""
    return sha256(b"\n".join(encode(part) for part in parts)).hexdigest()


def dump(
    model: LoraModel,
    optimiser: torch.optim.AdamW,
    state: TrainingState,
    *,
    blocks: Sequence[Block],
    tallies: dict[int, RowTally],
    belongs_to: str,
) -> bytes:
    """The state of the last finished step; there must be one."""
    cursor = Cursor(
        format=FORMAT,
        belongs_to=belongs_to,
        num_steps=state.num_steps,
        position=state.position,
        num_tokens=state.num_tokens,
        num_supervised=state.num_supervised,
        blocks=blocks,
        tallies=tallies,
        metrics=state.metrics,
    )
    # As a tensor, because the header of a safetensors file is not made for megabytes of metrics.
    tensors = {_STATE: torch.frombuffer(bytearray(encode(cursor)), dtype=torch.uint8)}
    tensors |= _random_states(model.device)
    for name, parameter in model.parameters().items():
        tensors[f"adapter.{name}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}.{name}"] = optimiser.state[parameter][moment]
    return safetensors.torch.save({name: tensor.cpu() for name, tensor in tensors.items()})


def load(
    content: bytes, model: LoraModel, optimiser: torch.optim.AdamW, *, belongs_to: str
) -> tuple[TrainingState, Cursor]:
    """
    Put parameters, moments and random state back; return the rest.

    Raises:
        FailedPrecondition: it is no checkpoint of ours, or of another training.
    """
    try:
        tensors = safetensors.torch.load(content)
        cursor = decode(tensors[_STATE].numpy().tobytes(), Cursor)
    except (SafetensorError, KeyError, msgspec.DecodeError) as problem:
        raise FailedPrecondition(f"it is no checkpoint ({type(problem).__name__})") from None
    if (cursor.format, cursor.belongs_to) != (FORMAT, belongs_to):
        raise FailedPrecondition("it is of other settings, another dataset or another base model")
    with torch.no_grad():
        for name, parameter in model.parameters().items():
            parameter.copy_(tensors[f"adapter.{name}"])
            moments = {
                moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in _MOMENTS
            }
            num_updates = torch.tensor(float(len(cursor.metrics)))
            optimiser.state[parameter] = {"step": num_updates, **moments}
    _restore_random_states(tensors, model.device)
    state = TrainingState(
        num_steps=cursor.num_steps,
        position=cursor.position,
        num_tokens=cursor.num_tokens,
        num_supervised=cursor.num_supervised,
        metrics=cursor.metrics,
    )
    return state, cursor


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """Dropout is 0 and the data's order needs no state; this is for what comes later to rely on."""
    states = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random.cuda"] = torch.cuda.get_rng_state(device)
    return states


def _restore_random_states(tensors: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
