"""
Causal attention within each document of a packed row and never across two. Registered under a name
of our own with transformers, so every architecture that asks its attention by name runs on packed
rows without a mask; features we do not know are refused, not ignored.

Shapes: B is 1, T tokens of the row, H query heads, K key-value heads, D width of a head.

Source: https://huggingface.co/docs/transformers/attention_interface
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from sublet.errors import FailedPrecondition

NAME: Final = "sublet_documents"
_NOT_KNOWN: Final = ("sliding_window", "softcap", "s_aux", "position_bias")


@dataclass(frozen=True, slots=True)
class DocumentBounds:
    """`starts` is (documents + 1) int32 on the GPU, where the kernel wants it; None on the CPU."""

    lengths: tuple[int, ...]
    starts: Tensor | None

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> "DocumentBounds":
        if device.type != "cuda":
            return cls(lengths, None)
        ends = torch.tensor(lengths, dtype=torch.int32, device=device).cumsum(0, dtype=torch.int32)
        return cls(lengths, F.pad(ends, (1, 0)))


def document_attention(
    module: torch.nn.Module,
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: None,
    *,
    documents: DocumentBounds,
    scaling: float | None = None,
    dropout: float = 0.0,
    **features: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """
    Returns (B, T, H, D), as transformers expects it.

    Raises:
        FailedPrecondition: the model asks for something else than plain causal attention.
    """
    asked = [name for name in _NOT_KNOWN if features.get(name) is not None]
    if asked or dropout or attention_mask is not None:
        raise FailedPrecondition(
            f"{type(module).__name__} asks for {', '.join(asked) or 'a mask or dropout'}; "
            "expected plain causal attention"
        )
    if documents.starts is not None:
        longest = max(documents.lengths)
        output_THD = _attend_varlen(
            query_BHTD, key_BKTD, value_BKTD, documents.starts, longest, scaling
        )
        return output_THD[None], None
    lengths = list(documents.lengths)
    by_document = zip(
        torch.split(query_BHTD, lengths, dim=2),
        torch.split(key_BKTD, lengths, dim=2),
        torch.split(value_BKTD, lengths, dim=2),
        strict=True,
    )
    outputs = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in by_document
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def _attend_varlen(
    query_BHTD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    starts: Tensor,
    longest: int,
    scaling: float | None,
) -> Tensor:
    """One kernel for all documents; bf16 or fp16 only. No GPU has run it yet: CI has none."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  loads GPU kernels

    output_THD = varlen_attn(
        query_BHTD[0].transpose(0, 1),
        key_BKTD[0].transpose(0, 1),
        value_BKTD[0].transpose(0, 1),
        starts,
        starts,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    assert isinstance(output_THD, Tensor)
    return output_THD


def _no_mask(*_: Any, **__: Any) -> None:  # noqa: ANN401
    """The bounds say it all; a (T, T) mask would cost T squared."""


AttentionInterface.register(NAME, document_attention)
AttentionMaskInterface.register(NAME, _no_mask)
