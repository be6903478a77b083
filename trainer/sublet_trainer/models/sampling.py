"""
Answers drawn from a base model with an adapter: token by token, several to one prompt at once, each
from the policy itself (no top-p, no top-k), so that what is drawn can be trained on. The prompt is
read once for all of them. The model is the trainer's own, so sampling and training see the same
numbers; but for rounding, on a CPU that samples sooner in bf16 and trains sooner in fp32.

Shapes: B answers to a prompt, T tokens of the prompt, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet_trainer.devices import device_of
from sublet_trainer.models.adapter import TENSORS, LoraModel
from sublet_trainer.models.base import load_base, stored_dtype
from sublet_trainer.models.llama import Llama, Memory
from sublet_trainer.models.precision import dtype_for_sampling


@dataclass(frozen=True, slots=True)
class Drawn:
    """`ids` are without the end token; `is_finished` says that it came."""

    ids: list[int]
    is_finished: bool


class Sampler:
    """
    Args:
        base: a folder as sublet_trainer.catalogue.base_models prepares it.
        adapter: a folder as the trainer writes it; None is the base model as it is.

    Raises:
        FailedPrecondition: the base model's architecture cannot be sampled from here, or the
            adapter is of another one.
    """

    def __init__(self, base: Path, adapter: Path | None, *, end_id: int) -> None:
        self._device = device_of()
        dtype = dtype_for_sampling(stored_dtype(base), self._device)
        self._end_id = end_id
        found = (
            load_base(base, dtype=dtype, device=self._device)
            if adapter is None
            else _with_adapter(base, adapter, dtype=dtype, device=self._device).base
        )
        if not isinstance(found, Llama):
            raise FailedPrecondition(
                f"{base} is of an architecture that sublet does not sample from; sample with a "
                "server such as vLLM, and write the rows yourself"
            )
        self._model = found

    @property
    def max_positions(self) -> int:
        return self._model.max_positions

    @torch.no_grad()
    def draw(
        self,
        prompt_ids: Sequence[int],
        *,
        number: int,
        max_new_tokens: int,
        temperature: float,
        seed: Sequence[int],
    ) -> list[Drawn]:
        """
        Answers to one prompt; equal seeds draw equal ones on the same machine.

        Raises:
            InvalidRequest: prompt and answer are longer than the model's positions.
        """
        limit = len(prompt_ids) + max_new_tokens
        if limit > self.max_positions:
            raise InvalidRequest(
                f"a prompt of {len(prompt_ids)} tokens leaves "
                f"{max(0, self.max_positions - len(prompt_ids))} for an answer; got a limit of "
                f"{max_new_tokens}"
            )
        dice = torch.Generator(self._device).manual_seed(_mixed(seed))
        memory = Memory(self._model, limit=limit)
        ids_BT = torch.tensor([list(prompt_ids)], device=self._device)
        logits_BV = self._logits(ids_BT, memory).expand(number, -1)
        memory.repeat(number)
        answers: list[list[int]] = [[] for _ in range(number)]
        finished = [False] * number
        for _ in range(max_new_tokens):
            chances_BV = torch.softmax(logits_BV / temperature, dim=-1)
            next_B1 = torch.multinomial(chances_BV, 1, generator=dice)
            for place, chosen in enumerate(next_B1[:, 0].tolist()):
                finished[place] |= chosen == self._end_id
                if not finished[place]:
                    answers[place].append(chosen)
            if all(finished):
                break
            logits_BV = self._logits(next_B1, memory)
        return [Drawn(*one) for one in zip(answers, finished, strict=True)]

    def _logits(self, ids_BT: Tensor, memory: Memory) -> Tensor:
        last_BD = self._model.next_hidden(ids_BT, memory)
        return (last_BD @ self._model.head_VD.T).float()


def _with_adapter(
    base: Path, adapter: Path, *, dtype: torch.dtype, device: torch.device
) -> LoraModel:
    config: dict[str, Any] = msgspec.json.decode((adapter / "adapter_config.json").read_bytes())
    model = LoraModel(
        base,
        rank=config["r"],
        seed=0,
        device=device,
        dtype=dtype,
        alpha=config["lora_alpha"],
        target_modules=tuple(config["target_modules"]),
        use_rslora=config.get("use_rslora", False),
        use_dora=config.get("use_dora", False),
    )
    model.continue_from((adapter / TENSORS).read_bytes())
    return model


def _mixed(seed: Sequence[int]) -> int:
    """One number of several, so that neighbours draw nothing alike."""
    return int(np.random.SeedSequence(list(seed)).generate_state(1, np.uint64)[0] >> 1)
