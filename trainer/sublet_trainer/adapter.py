"""
A base model, frozen, with a LoRA adapter around its linear layers, and what is done with the two:
the loss of a packed row, and the adapter as the files that PEFT and vLLM load. The adapter is fp32
everywhere; the base is fp32 on the CPU and bf16 on a GPU.

Shapes: T tokens of a row, S supervised tokens, D hidden width, V vocabulary.

Source: https://arxiv.org/abs/2106.09685 (LoRA); https://docs.vllm.ai/en/latest/features/lora.html
"""

import json
from enum import Enum
from pathlib import Path
from typing import Any, Final

import safetensors.torch
import torch
from peft import LoraConfig, TaskType, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from sublet.errors import FailedPrecondition
from sublet.names import ModelName
from sublet_trainer import attention
from sublet_trainer.loss import loss_sum
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
_SCALES_LOGITS: Final = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class LoraModel:
    """
    Args:
        folder: a base model as transformers loads it; nothing is fetched, no code of it is run.
        seed: of the adapter's first values.

    Raises:
        FailedPrecondition: the base model does something with its logits that our loss does not
        know.
    """

    def __init__(self, folder: Path, *, rank: int, seed: int, device: torch.device) -> None:
        base: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
            attn_implementation=attention.NAME,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
        base.to(device)
        _check_head(base)
        self.rank = rank
        self.device = device
        self.max_positions = int(getattr(base.config, "max_position_embeddings", 2**31))
        self.num_parameters = sum(weight.numel() for weight in base.parameters())
        self._config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=rank,
            lora_alpha=ALPHA_OVER_RANK * rank,
            lora_dropout=0.0,
            target_modules=list(TARGET_MODULES),
            bias="none",
        )
        torch.manual_seed(seed)
        self._peft = get_peft_model(base, self._config)
        self._peft.train()
        base.activation_checkpointing_enable({"use_reentrant": False})
        self._layers: list[Any] = [
            part for part in base.modules() if hasattr(part, "gradient_checkpointing")
        ]
        self._decoder = base.get_decoder()
        self._head_VD = base.get_output_embeddings().weight

    def parameters(self) -> dict[str, nn.Parameter]:
        """The adapter's own, by name, in the order of their names."""
        named = dict(self._peft.named_parameters())
        return {name: named[name] for name in sorted(named) if named[name].requires_grad}

    def loss_sum(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        """
        The summed, weighted loss of a row's supervised tokens, in nats; fp32 ().

        Args:
            recomputes: keep only each layer's input and compute the rest again in the backward
                pass: a third more work, for a row too long to keep whole.
        """
        for layer in self._layers:
            layer.gradient_checkpointing = recomputes
        hidden_1TD = self._decoder(
            input_ids=row.ids_T[None],
            position_ids=row.positions_T[None],
            use_cache=False,
            documents=attention.DocumentBounds.of(row.lengths, self.device),
        ).last_hidden_state
        hidden_SD = hidden_1TD[0, row.before_S]
        return loss_sum(hidden_SD, self._head_VD, row.targets_S, row.weights_S)

    def files(self, base_model: ModelName) -> dict[str, bytes]:
        """The adapter as a folder that PEFT loads; its base is named by resource, not by path."""
        state = get_peft_model_state_dict(self._peft)
        tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
        config: dict[str, Any] = self._config.to_dict()  # type: ignore[no-untyped-call]
        config |= {
            "base_model_name_or_path": str(base_model),
            "inference_mode": True,
            "target_modules": list(TARGET_MODULES),
        }
        return {
            "adapter_model.safetensors": safetensors.torch.save(tensors, {"format": "pt"}),
            "adapter_config.json": _as_json(config),
        }


def _check_head(base: Any) -> None:  # noqa: ANN401
    scales = [
        name for name in _SCALES_LOGITS if getattr(base.config, name, None) not in (None, 1.0)
    ]
    if scales or getattr(base.get_output_embeddings(), "bias", None) is not None:
        raise FailedPrecondition(
            f"the base model's head has {', '.join(scales) or 'a bias'}; expected a projection"
        )


def _as_json(config: dict[str, Any]) -> bytes:
    def plain(value: object) -> object:
        if isinstance(value, set | frozenset):
            return sorted(value)
        assert isinstance(value, Enum)
        return value.value

    return json.dumps(config, indent=2, sort_keys=True, default=plain).encode()
