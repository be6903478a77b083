"""
The decoder of Llama and its like (Mistral, Qwen2, Qwen3), on packed rows without a batch dimension.
Written here because it is a page, starts in a fraction of the seconds that importing transformers
takes, and keeps less for the backward pass. Its modules and parameters have transformers' names, so
a checkpoint loads as it is and an adapter's tensors are named as PEFT names them; its numbers are
transformers' too, which a test holds against it for every kind of model listed here.

What it does not know (sliding windows, rope types beside `default`, `linear` and `llama3`, other
activations) it declines: is_known() is False, and sublet_trainer.models.others takes the model.

Shapes: T tokens of a row, D hidden width, H query heads, K key-value heads, W width of a head,
I width inside the MLP, V vocabulary.

Source: https://arxiv.org/abs/2302.13971; https://arxiv.org/abs/2104.09864 (rotary positions)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.attention import LayerMemory, Layout, attend
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.lora import LoraLinear, frozen
from sublet_trainer.transfers import moved

_KNOWN: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
_ROPE_TYPES: Final = frozenset({"default", "linear", "llama3"})
Config = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaShape:
    """What config.json says of the model, with each family's own defaults filled in."""

    num_layers: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    vocabulary: int
    max_positions: int
    norm_eps: float
    rope: Mapping[str, Any]
    has_qkv_bias: bool
    has_o_bias: bool
    has_mlp_bias: bool
    norms_heads: bool
    ties_head: bool

    @classmethod
    def of(cls, config: Config) -> "LlamaShape":
        kind, num_heads = config["model_type"], config["num_attention_heads"]
        has_bias = bool(config.get("attention_bias", False))
        return cls(
            num_layers=config["num_hidden_layers"],
            width=config["hidden_size"],
            mlp_width=config["intermediate_size"],
            num_heads=num_heads,
            num_kv_heads=config.get("num_key_value_heads") or num_heads,
            head_width=config.get("head_dim") or config["hidden_size"] // num_heads,
            vocabulary=config["vocab_size"],
            max_positions=config["max_position_embeddings"],
            norm_eps=config["rms_norm_eps"],
            rope=_rope_of(config),
            has_qkv_bias=has_bias or kind == "qwen2",
            has_o_bias=has_bias and kind != "qwen2",
            has_mlp_bias=bool(config.get("mlp_bias", False)),
            norms_heads=kind == "qwen3",
            ties_head=bool(config.get("tie_word_embeddings", False)),
        )


def _rope_of(config: Config) -> dict[str, Any]:
    """Under one name and one key, whichever version of transformers wrote it."""
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = said.get("rope_type") or said.get("type") or "default"
    theta = said.get("rope_theta") or config.get("rope_theta") or 10000.0
    return {**said, "rope_type": kind, "rope_theta": theta}


def is_known(config: Config) -> bool:
    slides = config.get("sliding_window") and config.get("use_sliding_window", True)
    return (
        config.get("model_type") in _KNOWN
        and config.get("hidden_act", "silu") == "silu"
        and not slides
        and _rope_of(config)["rope_type"] in _ROPE_TYPES
        and not config.get("attention_dropout")
        and not config.get("quantization_config")
    )


class Llama(nn.Module):
    """Built without values: load_state_dict(..., assign=True) brings them."""

    is_compilable: Final = True

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = _Decoder(shape)
        self.lm_head = None if shape.ties_head else LoraLinear(shape.width, shape.vocabulary)

    @property
    def head_VD(self) -> Tensor:
        return (self.lm_head or self.model.embed_tokens).weight

    @property
    def module(self) -> nn.Module:
        return self

    @property
    def layers(self) -> list[nn.Module]:
        return list(self.model.layers)

    @property
    def max_positions(self) -> int:
        return self.shape.max_positions

    @property
    def num_parameters(self) -> int:
        return sum(weight.numel() for weight in self.parameters())

    def linears(self) -> dict[str, LoraLinear]:
        layers = self.model.layers.named_modules(prefix="model.layers")
        return {path: part for path, part in layers if isinstance(part, LoraLinear)}

    def hidden(self, row: PackedRow, *, recomputes: bool) -> Tensor:
        """
        The last hidden states of a row, (T, D).

        Args:
            recomputes: keep only each layer's input and compute the rest again in the backward
                pass: a third more work, for a row too long to keep whole.
        """
        x_TD = F.embedding(row.ids_T, self.model.embed_tokens.weight)
        layout = Layout.of(row.stretches, x_TD.device)
        rotary = _Rotary.of(self.shape, row.positions_T, x_TD.dtype)
        for layer in self.model.layers:
            if recomputes:
                x_TD = checkpoint(layer, x_TD, rotary, layout, use_reentrant=False)
            else:
                x_TD = layer(x_TD, rotary, layout)
        normed_TD: Tensor = self.model.norm(x_TD)
        return normed_TD

    def compile_layers(self, compiler: Compiler | None) -> None:
        """
        The first stays as it is written: what it begins from has no gradient, and so it would be
        other programs, to be compiled for it alone.
        """
        halves = _AS_WRITTEN
        if compiler:
            halves = _Halves(compiler(_before_attention), compiler(_after_attention))
        for layer in self.layers[1:]:
            assert isinstance(layer, _Layer)
            layer.halves = halves

    def next_hidden(self, ids_BT: Tensor, memory: "Memory") -> Tensor:
        """
        The last hidden state of each sequence after T more tokens, (B, D); they are remembered.

        More than one token only where nothing is remembered yet.
        """
        num_sequences, num_tokens = ids_BT.shape
        x_TD = F.embedding(ids_BT.flatten(), self.model.embed_tokens.weight)
        places_T = torch.arange(num_tokens, device=x_TD.device) + memory.length
        rotary = _Rotary.of(self.shape, places_T.repeat(num_sequences), x_TD.dtype)
        for layer, of_layer in zip(self.model.layers, memory.layers, strict=True):
            x_TD = layer(x_TD, rotary, of_layer)
        memory.length += num_tokens
        last_BD: Tensor = self.model.norm(x_TD.view(num_sequences, num_tokens, -1)[:, -1])
        return last_BD


class Memory:
    """
    What sequences of one length have been so far, at most `limit` tokens: one, and then several
    that begin with it.
    """

    def __init__(self, model: Llama, *, limit: int) -> None:
        self.layers = [LayerMemory(limit=limit) for _ in range(model.shape.num_layers)]
        self.length = 0

    def repeat(self, number: int) -> None:
        for layer in self.layers:
            layer.repeat(number)


class _Decoder(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.embed_tokens = _Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_layers))
        self.norm = _RmsNorm(shape.width, shape.norm_eps)


class _Embedding(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.weight = frozen(vocabulary, width)


class _Layer(nn.Module):
    """Attention between two halves, each of which may be compiled; it itself is kernels already."""

    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self.input_layernorm = _RmsNorm(shape.width, shape.norm_eps)
        self.self_attn = _Attention(shape)
        self.post_attention_layernorm = _RmsNorm(shape.width, shape.norm_eps)
        self.mlp = _Mlp(shape)
        self.halves = _AS_WRITTEN

    def forward(self, x_TD: Tensor, rotary: "_Rotary", layout: Layout | LayerMemory) -> Tensor:
        halves = self.halves if torch.is_grad_enabled() else _AS_WRITTEN
        query_THW, key_TKW, value_TKW = halves.before(self, x_TD, rotary.cos, rotary.sin)
        scale = query_THW.shape[-1] ** -0.5
        mixed_THW = attend(query_THW, key_TKW, value_TKW, layout, scale)
        return halves.after(self, x_TD, mixed_THW)


def _before_attention(
    layer: _Layer, x_TD: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return layer.self_attn(layer.input_layernorm(x_TD), _Rotary(cos, sin))  # type: ignore[no-any-return]


def _after_attention(layer: _Layer, x_TD: Tensor, mixed_THW: Tensor) -> Tensor:
    x_TD = x_TD + layer.self_attn.o_proj(mixed_THW.flatten(1))
    return x_TD + layer.mlp(layer.post_attention_layernorm(x_TD))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Halves:
    before: Callable[[_Layer, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
    after: Callable[[_Layer, Tensor, Tensor], Tensor]


_AS_WRITTEN: Final = _Halves(_before_attention, _after_attention)


class _Attention(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        self._head_width = width = shape.head_width
        inside, inside_kv = shape.num_heads * width, shape.num_kv_heads * width
        self.q_proj = LoraLinear(shape.width, inside, has_bias=shape.has_qkv_bias)
        self.k_proj = LoraLinear(shape.width, inside_kv, has_bias=shape.has_qkv_bias)
        self.v_proj = LoraLinear(shape.width, inside_kv, has_bias=shape.has_qkv_bias)
        self.o_proj = LoraLinear(inside, shape.width, has_bias=shape.has_o_bias)
        self.q_norm = _RmsNorm(width, shape.norm_eps) if shape.norms_heads else nn.Identity()
        self.k_norm = _RmsNorm(width, shape.norm_eps) if shape.norms_heads else nn.Identity()

    def forward(self, x_TD: Tensor, rotary: "_Rotary") -> tuple[Tensor, Tensor, Tensor]:
        """Queries (T, H, W), keys and values (T, K, W); what comes of them goes to o_proj."""
        by_head = (len(x_TD), -1, self._head_width)
        query_THW = rotary.turn(self.q_norm(self.q_proj(x_TD).view(by_head)))
        key_TKW = rotary.turn(self.k_norm(self.k_proj(x_TD).view(by_head)))
        return query_THW, key_TKW, self.v_proj(x_TD).view(by_head)


class _Mlp(nn.Module):
    def __init__(self, shape: LlamaShape) -> None:
        super().__init__()
        has_bias = shape.has_mlp_bias
        self.gate_proj = LoraLinear(shape.width, shape.mlp_width, has_bias=has_bias)
        self.up_proj = LoraLinear(shape.width, shape.mlp_width, has_bias=has_bias)
        self.down_proj = LoraLinear(shape.mlp_width, shape.width, has_bias=has_bias)

    def forward(self, x_TD: Tensor) -> Tensor:
        gated_TI = _SiluTimes.apply(self.gate_proj(x_TD), self.up_proj(x_TD))  # type: ignore[no-untyped-call]
        return self.down_proj(gated_TI)  # type: ignore[no-any-return]


class _SiluTimes(torch.autograd.Function):
    """silu(gate) * up, keeping neither silu(gate) nor its slope."""

    @staticmethod
    def forward(ctx: Any, gate_TI: Tensor, up_TI: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(gate_TI, up_TI)
        return F.silu(gate_TI).mul_(up_TI)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TI: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        gate_TI, up_TI = ctx.saved_tensors
        dup_TI = F.silu(gate_TI).mul_(grad_TI)
        dgate_TI = torch.ops.aten.silu_backward(grad_TI * up_TI, gate_TI)
        return dgate_TI, dup_TI


class _RmsNorm(nn.Module):
    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = frozen(width)
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:  # (..., D) -> (..., D)
        normed: Tensor = _RmsNormed.apply(x, self.weight, self._eps)  # type: ignore[no-untyped-call]
        return normed


class _RmsNormed(torch.autograd.Function):
    """x / rms(x) * weight, in fp32 inside; keeps x as it came and a number a token."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:  # noqa: ANN401
        wide_TD = x_TD.float()
        scale_T1 = torch.linalg.vector_norm(wide_TD, dim=-1, keepdim=True)
        scale_T1 = scale_T1.square_().div_(x_TD.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x_TD, weight_D, scale_T1)
        normed_TD: Tensor = (wide_TD * scale_T1).to(x_TD.dtype).mul_(weight_D)
        return normed_TD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, Tensor | None, None]:  # noqa: ANN401
        x_TD, weight_D, scale_T1 = ctx.saved_tensors
        normed_TD = x_TD.float() * scale_T1
        dweight_D = (
            (grad_TD.float() * normed_TD).flatten(0, -2).sum(0).to(weight_D.dtype)
            if ctx.needs_input_grad[1]
            else None
        )
        dnormed_TD = (grad_TD * weight_D).float()
        along_T1 = (dnormed_TD * normed_TD).mean(-1, keepdim=True)
        dx_TD = dnormed_TD.addcmul_(normed_TD, along_T1, value=-1).mul_(scale_T1)
        return dx_TD.to(x_TD.dtype), dweight_D, None


@dataclass(frozen=True, slots=True)
class _Rotary:
    """The angles of a row's positions, (T, 1, W / 2)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of(cls, shape: LlamaShape, positions_T: Tensor, dtype: torch.dtype) -> "_Rotary":
        frequencies = moved(_frequencies(shape.rope, shape.head_width), positions_T.device)
        angles = positions_T[:, None, None].float() * frequencies
        return cls(angles.cos().to(dtype), angles.sin().to(dtype))

    def turn(self, x_THW: Tensor) -> Tensor:
        turned: Tensor = _Turn.apply(x_THW, self.cos, self.sin)  # type: ignore[no-untyped-call]
        return turned


class _Turn(torch.autograd.Function):
    """Rotates each pair (w, w + W / 2) of a head; backward it rotates back."""

    @staticmethod
    def forward(ctx: Any, x_THW: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(cos, sin)
        return _turned(x_THW, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THW: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        cos, sin = ctx.saved_tensors
        return _turned(grad_THW, cos, -sin), None, None


def _turned(x_THW: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_THW.chunk(2, dim=-1)
    ahead = (first * cos).sub_(second * sin)
    return torch.cat([ahead, (second * cos).add_(first * sin)], dim=-1)


def _frequencies(rope: Mapping[str, Any], head_width: int) -> Tensor:
    """Radians a position for each pair, fp32 (W / 2)."""
    exponents = torch.arange(0, head_width, 2, dtype=torch.int64).float() / head_width
    frequencies = 1.0 / float(rope["rope_theta"]) ** exponents
    if rope["rope_type"] == "linear":
        return frequencies / float(rope["factor"])
    if rope["rope_type"] == "llama3":
        return _stretched_as_llama3(frequencies, rope)
    return frequencies


def _stretched_as_llama3(frequencies: Tensor, rope: Mapping[str, Any]) -> Tensor:
    """Slow frequencies are divided by `factor`, fast ones kept, those between blended."""
    slow, fast = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    turns = frequencies * float(rope["original_max_position_embeddings"]) / (2 * pi)
    keeps = ((turns - slow) / (fast - slow)).clamp(0, 1)
    return frequencies * (keeps + (1 - keeps) / float(rope["factor"]))
