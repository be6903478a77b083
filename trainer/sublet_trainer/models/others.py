"""
Base models of architectures that models.llama does not know, through transformers: its modules,
with our linear layers in the place of its own, and our attention under a name of our own. What asks
for more than plain causal attention, or scales its logits, is refused, not ignored.

Source: https://huggingface.co/docs/transformers/attention_interface
"""

from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface
from transformers.utils import logging

from sublet.errors import FailedPrecondition
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.attention import Layout, attend
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.lora import LoraLinear

NAME: Final = "sublet_documents"
_NOT_KNOWN: Final = ("sliding_window", "softcap", "s_aux", "position_bias")
_SCALES_LOGITS: Final = ("final_logit_softcapping", "logit_scale", "logits_scaling")


class Other:
    """A causal language model of transformers as a Base."""

    is_compilable: Final = (
        False  # each architecture would have to be shown to give the same numbers
    )

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._decoder = model.get_decoder()
        self._model = model
        self.module: nn.Module = model
        self.layers: list[nn.Module] = [
            part for part in model.modules() if hasattr(part, "gradient_checkpointing")
        ]
        self._linears = _with_our_linears(model)

    @property
    def head_VD(self) -> Tensor:
        return self._model.get_output_embeddings().weight  # type: ignore[no-any-return]

    @property
    def max_positions(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", 2**31))

    @property
    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self._model.parameters())

    def compile_layers(self, compiler: Compiler | None) -> None:
        assert compiler is None

    def linears(self) -> dict[str, LoraLinear]:
        return self._linears

    def hidden(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        for layer in self.layers:
            layer.gradient_checkpointing = recomputes  # type: ignore[assignment]
        hidden_1TD = self._decoder(
            input_ids=row.ids_T[None],
            position_ids=row.positions_T[None],
            use_cache=False,
            documents=Layout.of(row.stretches, row.ids_T.device),
        ).last_hidden_state
        return hidden_1TD[0]  # type: ignore[no-any-return]


def load_other(folder: Path, *, dtype: torch.dtype, device: torch.device) -> Other:
    """
    Raises:
        FailedPrecondition: its head is not a projection alone, or only code of its own runs it.
    """
    _check_is_known(folder)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        attn_implementation=NAME,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    _check_head(model)
    model.to(device).requires_grad_(False)  # noqa: FBT003  the name says it
    model.train()
    model.activation_checkpointing_enable({"use_reentrant": False})
    return Other(model)


def _check_is_known(folder: Path) -> None:
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING:
        raise FailedPrecondition(
            f"{folder} brings code of its own (auto_map in its config.json), which is never run; "
            "expected an architecture that transformers knows"
        )


def _with_our_linears(model: nn.Module) -> dict[str, LoraLinear]:
    head = model.get_output_embeddings()  # type: ignore[operator]
    found = {
        path: part
        for path, part in model.named_modules()
        if isinstance(part, nn.Linear) and part is not head
    }
    ours = {}
    for path, part in found.items():
        ours[path] = LoraLinear.of(part)
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, ours[path])
    return ours


def _check_head(model: Any) -> None:  # noqa: ANN401
    scales = [
        name for name in _SCALES_LOGITS if getattr(model.config, name, None) not in (None, 1.0)
    ]
    if scales or getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise FailedPrecondition(
            f"the base model's head has {', '.join(scales) or 'a bias'}; expected a projection"
        )


def _document_attention(
    module: nn.Module,
    query_1HTW: Tensor,
    key_1KTW: Tensor,
    value_1KTW: Tensor,
    attention_mask: None,
    *,
    documents: Layout,
    scaling: float | None = None,
    dropout: float = 0.0,
    **features: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """
    Returns (1, T, H, W), as transformers expects it.

    Raises:
        FailedPrecondition: the model asks for something else than plain causal attention.
    """
    asked = [name for name in _NOT_KNOWN if features.get(name) is not None]
    if asked or dropout or attention_mask is not None:
        raise FailedPrecondition(
            f"{type(module).__name__} asks for {', '.join(asked) or 'a mask or dropout'}; "
            "expected plain causal attention"
        )
    query_THW, key_TKW, value_TKW = (
        part[0].transpose(0, 1).contiguous() for part in (query_1HTW, key_1KTW, value_1KTW)
    )
    scale = query_THW.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query_THW, key_TKW, value_TKW, documents, scale)[None], None


def _no_mask(*_: Any, **__: Any) -> None:  # noqa: ANN401
    """The layout says it all; a (T, T) mask would cost T squared."""


AttentionInterface.register(NAME, _document_attention)
AttentionMaskInterface.register(NAME, _no_mask)
