"""
A base model, frozen, with a LoRA adapter around its linear layers, and what is done with the two:
the log-probabilities of a packed row's tokens, and the adapter as the files that PEFT and vLLM
load. The adapter is fp32 everywhere, the base what sublet_trainer.precision says.

Shapes: T tokens of a row, S supervised tokens, D hidden width, V vocabulary.

Source: https://arxiv.org/abs/2106.09685 (LoRA); https://huggingface.co/docs/peft/developer_guides/checkpoint
(the files); https://docs.vllm.ai/en/latest/features/lora.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
import safetensors.torch
import torch
from torch import Tensor, nn

from sublet.errors import FailedPrecondition
from sublet.names import ModelName
from sublet_trainer.base import load_base
from sublet_trainer.loss import log_probs
from sublet_trainer.packing import PackedRow

TARGET_MODULES: Final = (
    "down_proj",
    "gate_proj",
    "k_proj",
    "o_proj",
    "q_proj",
    "up_proj",
    "v_proj",
)
"""Every linear layer of a block, sorted so that equal trainings give equal bytes."""
ALPHA_OVER_RANK: Final = 2


class LoraModel:
    """
    Args:
        folder: a base model in transformers' layout; nothing is fetched, no code of it is run.
        seed: of the adapter's first values.

    Raises:
        FailedPrecondition: the base model does something that we do not know.
    """

    def __init__(
        self, folder: Path, *, rank: int, seed: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.rank = rank
        self.device = device
        self._base = load_base(folder, dtype=dtype, device=device)
        self.max_positions = self._base.max_positions
        self.num_parameters = self._base.num_parameters
        linears = self._base.linears()
        self._targets = {
            path: linears[path]
            for path in sorted(linears)
            if path.rpartition(".")[2] in TARGET_MODULES
        }
        if not self._targets:
            raise FailedPrecondition(
                f"{folder} has none of the layers {', '.join(TARGET_MODULES)}; expected some"
            )
        torch.manual_seed(seed)
        for linear in self._targets.values():
            linear.add_lora(rank, alpha=ALPHA_OVER_RANK * rank, device=device)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's own, by the names that PEFT's files give them, in the order of those."""
        found = {}
        for path, linear in self._targets.items():
            assert linear.lora_A is not None
            assert linear.lora_B is not None
            found[f"base_model.model.{path}.lora_A.weight"] = linear.lora_A
            found[f"base_model.model.{path}.lora_B.weight"] = linear.lora_B
        return found

    def log_probs(self, row: PackedRow, *, recomputes: bool = False) -> Tensor:
        """
        The log-probability of each supervised token of a row, in nats; fp32 (S,).

        Args:
            recomputes: keep only each layer's input and compute the rest again in the backward
                pass: a third more work, for a row too long to keep whole.
        """
        hidden_TD = self._base.hidden(row, recomputes=recomputes)
        return log_probs(hidden_TD[row.before_S], self._base.head_VD, row.targets_S)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Within it the model is the base model, without its adapter."""
        for linear in self._targets.values():
            linear.is_enabled = False
        try:
            yield
        finally:
            for linear in self._targets.values():
                linear.is_enabled = True

    def files(self, base_model: ModelName) -> dict[str, bytes]:
        """The adapter as a folder that PEFT loads; its base is named by resource, not by path."""
        tensors = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in self.parameters().items()
        }
        config = {
            "base_model_name_or_path": str(base_model),
            "bias": "none",
            "inference_mode": True,
            "lora_alpha": ALPHA_OVER_RANK * self.rank,
            "lora_dropout": 0.0,
            "modules_to_save": None,
            "peft_type": "LORA",
            "r": self.rank,
            "target_modules": list(TARGET_MODULES),
            "task_type": "CAUSAL_LM",
            "use_dora": False,
            "use_rslora": False,
        }
        return {
            "adapter_model.safetensors": safetensors.torch.save(tensors, {"format": "pt"}),
            "adapter_config.json": msgspec.json.format(msgspec.json.encode(config), indent=2),
        }
