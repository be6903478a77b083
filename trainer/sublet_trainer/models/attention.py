"""
Causal attention within each document of a packed row and never across two.

On the CPU it is matrix products by document and block of queries: torch's own flash kernel is
slower there on documents of some hundred tokens, most of all backward. The probabilities of short
documents are kept for the backward pass; it makes those of longer ones again, so that memory does
not grow with the square of a length. On a GPU it is torch's own kernel, which wants each document
whole: what several share is copied for it, and counted once. Heads that this does not take go the
CPU's way there too.

Shapes: T tokens of a row, of a stretch, or of a block; H query heads, K key-value heads, G = H / K
query heads to a key-value head, D width of a head, S the keys that a block may see and what pads
them, B sequences, N tokens of all documents of a row, each whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from sublet_trainer.data.packing import Stretch
from sublet_trainer.transfers import moved

QUERIES_AT_ONCE: Final = 128
"""Bounds the scores in memory to this many rows of a document's length for every head."""
KEPT_KEYS: Final = 512
"""Of SmolLM2, a token of a document so long keeps 6 KB in each layer, and 17 KB of all else."""
_ALIGNED: Final = 32
"""Softmax of bf16 is up to three times as fast where rows are whole vectors of AVX-512."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a row its documents are; `whole` is for the GPU's kernel, None on the CPU."""

    stretches: tuple[Stretch, ...]
    whole: "WholeDocuments | None"

    @classmethod
    def of(cls, stretches: tuple[Stretch, ...], device: torch.device) -> "Layout":
        return cls(
            stretches, WholeDocuments.of(stretches, device) if device.type == "cuda" else None
        )


@dataclass(frozen=True, slots=True)
class WholeDocuments:
    """
    The documents of a row end to end, each with all that it goes on from. `places_N` are their
    tokens' in the row, `own_T` the places, in these N, where each token of the row is its
    document's own. `starts` is (documents + 1) int32.
    """

    places_N: Tensor
    own_T: Tensor
    starts: Tensor
    longest: int

    @classmethod
    def of(cls, stretches: tuple[Stretch, ...], device: torch.device) -> "WholeDocuments":
        parts = [
            [torch.arange(s.start, s.stop) for s in (*one.before, one.own)] for one in stretches
        ]
        lengths = torch.tensor([sum(map(len, part)) for part in parts])
        ends = lengths.cumsum(0)
        own = [
            torch.arange(end - len(part[-1]), end) for part, end in zip(parts, ends, strict=True)
        ]
        return cls(
            places_N=moved(torch.cat([torch.cat(part) for part in parts]), device),
            own_T=moved(torch.cat(own), device),
            starts=moved(F.pad(ends, (1, 0)).int(), device),
            longest=int(lengths.max()),
        )


class LayerMemory:
    """
    The keys and values of one layer for B sequences of one length, so that their next tokens need
    not read them anew. For sampling: it has no gradient.
    """

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._num_sequences, self._length = 1, 0
        self._kept_2BSKD: Tensor | None = None

    def repeat(self, number: int) -> None:
        """The one sequence so far becomes the beginning of several."""
        assert self._kept_2BSKD is not None
        self._num_sequences = number
        self._kept_2BSKD = self._kept_2BSKD.repeat(1, number, 1, 1, 1)

    def attend(self, query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, scale: float) -> Tensor:
        """Of the next T / B tokens of each sequence, laid end to end; they are remembered."""
        apart = (self._num_sequences, -1, *key_TKD.shape[1:])
        new_2BSKD = torch.stack([key_TKD.view(apart), value_TKD.view(apart)])
        if self._kept_2BSKD is None:
            shape = (2, self._num_sequences, self._limit, *key_TKD.shape[1:])
            self._kept_2BSKD = new_2BSKD.new_empty(shape)
        is_first, end = self._length == 0, self._length + new_2BSKD.shape[2]
        self._kept_2BSKD[:, :, self._length : end] = new_2BSKD
        self._length = end
        keys_BKSD, values_BKSD = self._kept_2BSKD[:, :, :end].transpose(2, 3)
        query_BHSD = query_THD.view(self._num_sequences, -1, *query_THD.shape[1:]).transpose(1, 2)
        output_BHSD = F.scaled_dot_product_attention(
            query_BHSD, keys_BKSD, values_BKSD, is_causal=is_first, scale=scale, enable_gqa=True
        )
        return output_BHSD.transpose(1, 2).reshape(query_THD.shape)


def attend(
    query_THD: Tensor,
    key_TKD: Tensor,
    value_TKD: Tensor,
    layout: Layout | LayerMemory,
    scale: float,
) -> Tensor:
    """softmax(scale * q k') v, each token looking at its own document up to itself; (T, H, D)."""
    if isinstance(layout, LayerMemory):
        return layout.attend(query_THD, key_TKD, value_TKD, scale)
    if layout.whole is not None and _is_taken_by_kernel(query_THD):
        return _attend_whole(query_THD, key_TKD, value_TKD, layout.whole, scale)
    output_THD: Tensor = _AttendByStretch.apply(  # type: ignore[no-untyped-call]
        query_THD, key_TKD, value_TKD, layout.stretches, scale
    )
    return output_THD


def _is_taken_by_kernel(query_THD: Tensor) -> bool:
    """
    On every GPU; some take those between, too.

    Source: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/transformers/cuda/sdp_utils.cpp
    """
    width = query_THD.shape[-1]
    return width % 8 == 0 and (width <= 192 or 224 < width <= 256)


class _AttendByStretch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query_THD: Tensor,
        key_TKD: Tensor,
        value_TKD: Tensor,
        stretches: tuple[Stretch, ...],
        scale: float,
    ) -> Tensor:
        ctx.stretches, ctx.scale = stretches, scale
        output_THD, kept = torch.empty_like(query_THD), list[Tensor | None]()
        for queries, keys in _blocks(stretches):
            query = _by_kv_head(query_THD, queries, key_TKD.shape[1]) * scale
            probabilities = _probabilities(query, _seen(key_TKD, keys), queries, keys)
            _put(output_THD, queries, probabilities @ _seen(value_TKD, keys))
            kept.append(probabilities if probabilities.shape[-1] <= KEPT_KEYS else None)
        ctx.save_for_backward(query_THD, key_TKD, value_TKD, *kept)
        return output_THD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # noqa: ANN401
        """The gradients of keys are summed in fp32: many documents may go on from one."""
        query_THD, key_TKD, value_TKD, *kept = ctx.saved_tensors
        num_kv_heads = key_TKD.shape[1]
        dquery_THD = torch.empty_like(query_THD)
        dkey_TKD, dvalue_TKD = (
            torch.zeros_like(x, dtype=torch.float32) for x in (key_TKD, value_TKD)
        )
        for (queries, keys), known in zip(_blocks(ctx.stretches), kept, strict=True):
            query = _by_kv_head(query_THD, queries, num_kv_heads) * ctx.scale
            grad = _by_kv_head(grad_THD, queries, num_kv_heads)
            key_KSD, value_KSD = _seen(key_TKD, keys), _seen(value_TKD, keys)
            probabilities = (
                _probabilities(query, key_KSD, queries, keys) if known is None else known
            )
            _add_to_seen(dvalue_TKD, keys, probabilities.mT @ grad)
            dscores = torch.ops.aten._softmax_backward_data(  # noqa: SLF001  its only name
                grad @ value_KSD.mT, probabilities, -1, grad.dtype
            )
            _add_to_seen(dkey_TKD, keys, dscores.mT @ query)
            _put(dquery_THD, queries, (dscores @ key_KSD).mul_(ctx.scale))
        return dquery_THD, dkey_TKD.to(key_TKD.dtype), dvalue_TKD.to(value_TKD.dtype), None, None


def _blocks(stretches: tuple[Stretch, ...]) -> Iterator[tuple[slice, tuple[slice, ...]]]:
    """Places of some queries, and of all the keys they may see; the last key is the last query."""
    for one in stretches:
        for first in range(one.own.start, one.own.stop, QUERIES_AT_ONCE):
            end = min(first + QUERIES_AT_ONCE, one.own.stop)
            yield slice(first, end), (*one.before, slice(one.own.start, end))


def _by_kv_head(query_THD: Tensor, queries: slice, num_kv_heads: int) -> Tensor:
    """(K, T * G, D): one product serves all queries of a key-value head."""
    _, num_heads, width = query_THD.shape
    query_TKGD = query_THD[queries].view(-1, num_kv_heads, num_heads // num_kv_heads, width)
    return query_TKGD.transpose(0, 1).reshape(num_kv_heads, -1, width)


def _seen(key_TKD: Tensor, keys: tuple[slice, ...]) -> Tensor:
    """(K, S, D), zeros at the end."""
    num_keys = _num(keys)
    seen_SKD = key_TKD.new_zeros(_padded(num_keys), *key_TKD.shape[1:])
    torch.cat([key_TKD[part] for part in keys], out=seen_SKD[:num_keys])
    return seen_SKD.transpose(0, 1)


def _add_to_seen(dkey_TKD: Tensor, keys: tuple[slice, ...], added_KSD: Tensor) -> None:
    added_SKD = added_KSD[:, : _num(keys)].transpose(0, 1)
    lengths = [part.stop - part.start for part in keys]
    for part, of_part in zip(keys, torch.split(added_SKD, lengths), strict=True):
        dkey_TKD[part] += of_part


def _num(keys: tuple[slice, ...]) -> int:
    return sum(part.stop - part.start for part in keys)


def _padded(num_keys: int) -> int:
    return -(-num_keys // _ALIGNED) * _ALIGNED


def _put(output_THD: Tensor, queries: slice, by_kv_head: Tensor) -> None:
    """Write (K, T * G, D) back to its tokens."""
    place_THD = output_THD[queries]
    num_tokens, num_heads, width = place_THD.shape
    num_kv_heads = len(by_kv_head)
    by_head_KTGD = by_kv_head.view(num_kv_heads, num_tokens, num_heads // num_kv_heads, width)
    place_THD.view(num_tokens, num_kv_heads, -1, width).copy_(by_head_KTGD.transpose(0, 1))


def _probabilities(
    query: Tensor, key_KSD: Tensor, queries: slice, keys: tuple[slice, ...]
) -> Tensor:
    """(K, T * G, S) of scaled queries; the last key but for padding belongs to the last query."""
    num_queries, num_keys = queries.stop - queries.start, _num(keys)
    scores = query @ key_KSD.mT
    by_query_KTGS = scores.view(len(scores), num_queries, -1, scores.shape[-1])
    first = (num_keys - num_queries) // _ALIGNED * _ALIGNED
    by_query_KTGS[..., first:] += _unseen(
        num_queries, num_keys - first, scores.dtype, scores.device
    )
    return torch.softmax(scores, dim=-1)


@lru_cache
def _unseen(num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """
    -inf for keys that a query comes before, and padding, (T, 1, S); the last key is the last query.
    """
    shape = (num_queries, _padded(num_keys))
    unseen_TS = torch.full(shape, -torch.inf, dtype=dtype, device=device)
    return unseen_TS.triu_(1 + num_keys - num_queries)[:, None]


def _attend_whole(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, documents: WholeDocuments, scale: float
) -> Tensor:
    """One kernel for all documents; bf16 or fp16 only. No GPU has run it yet: CI has none."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  loads GPU kernels

    output_NHD = varlen_attn(
        query_THD.index_select(0, documents.places_N),
        _Gathered.apply(key_TKD, documents.places_N),  # type: ignore[no-untyped-call]
        _Gathered.apply(value_TKD, documents.places_N),  # type: ignore[no-untyped-call]
        documents.starts,
        documents.starts,
        documents.longest,
        documents.longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    assert isinstance(output_NHD, Tensor)
    return output_NHD.index_select(0, documents.own_T)


class _Gathered(torch.autograd.Function):
    """index_select(), with gradients summed in fp32: many documents may go on from one."""

    @staticmethod
    def forward(ctx: Any, key_TKD: Tensor, places_N: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(places_N)
        ctx.num_places = len(key_TKD)
        return key_TKD.index_select(0, places_N)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NKD: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        (places_N,) = ctx.saved_tensors
        shape = (ctx.num_places, *grad_NKD.shape[1:])
        dkey_TKD = grad_NKD.new_zeros(shape, dtype=torch.float32)
        dkey_TKD.index_add_(0, places_N, grad_NKD.float())
        return dkey_TKD.to(grad_NKD.dtype), None
