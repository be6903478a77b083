"""
Causal attention within each document of a packed row and never across two.

On the CPU it is matrix products by document and block of queries: torch's own flash kernel is
slower there on documents of some hundred tokens, most of all backward. Nothing of size T x T is
kept for the backward pass, which makes the probabilities again.

Shapes: T tokens of a row, of a document, or of a block; H query heads, K key-value heads, G = H / K
query heads to a key-value head, D width of a head, S the keys that a block may see, B sequences.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES_AT_ONCE: Final = 128
"""Bounds the scores in memory to this many rows of a document's length for every head."""


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
    bounds: DocumentBounds | LayerMemory,
    scale: float,
) -> Tensor:
    """softmax(scale * q k') v, each token looking at its own document up to itself; (T, H, D)."""
    if isinstance(bounds, LayerMemory):
        return bounds.attend(query_THD, key_TKD, value_TKD, scale)
    if bounds.starts is not None:
        return _attend_varlen(query_THD, key_TKD, value_TKD, bounds, scale)
    output_THD: Tensor = _AttendByDocument.apply(  # type: ignore[no-untyped-call]
        query_THD, key_TKD, value_TKD, bounds.lengths, scale
    )
    return output_THD


class _AttendByDocument(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        query_THD: Tensor,
        key_TKD: Tensor,
        value_TKD: Tensor,
        lengths: tuple[int, ...],
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(query_THD, key_TKD, value_TKD)
        ctx.lengths, ctx.scale = lengths, scale
        output_THD = torch.empty_like(query_THD)
        for queries, keys in _blocks(lengths):
            query, key_KSD, value_KSD = _by_kv_head(query_THD, key_TKD, value_TKD, queries, keys)
            probabilities = _probabilities(query * scale, key_KSD, len(output_THD[queries]))
            _put(output_THD, queries, probabilities @ value_KSD)
        return output_THD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_THD: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:  # noqa: ANN401
        query_THD, key_TKD, value_TKD = ctx.saved_tensors
        dquery_THD = torch.empty_like(query_THD)
        dkey_TKD, dvalue_TKD = torch.zeros_like(key_TKD), torch.zeros_like(value_TKD)
        for queries, keys in _blocks(ctx.lengths):
            query, key_KSD, value_KSD = _by_kv_head(query_THD, key_TKD, value_TKD, queries, keys)
            query *= ctx.scale
            grad, _, _ = _by_kv_head(grad_THD, key_TKD, value_TKD, queries, keys)
            probabilities = _probabilities(query, key_KSD, len(grad_THD[queries]))
            dvalue_TKD[keys] += (probabilities.mT @ grad).transpose(0, 1)
            dscores = torch.ops.aten._softmax_backward_data(  # noqa: SLF001  its only name
                grad @ value_KSD.mT, probabilities, -1, grad.dtype
            )
            dkey_TKD[keys] += (dscores.mT @ query).transpose(0, 1)
            _put(dquery_THD, queries, (dscores @ key_KSD).mul_(ctx.scale))
        return dquery_THD, dkey_TKD, dvalue_TKD, None, None


def _blocks(lengths: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Places of some queries, and of all the keys they may see; the last key is the last query."""
    start = 0
    for length in lengths:
        for first in range(start, start + length, QUERIES_AT_ONCE):
            end = min(first + QUERIES_AT_ONCE, start + length)
            yield slice(first, end), slice(start, end)
        start += length


def _by_kv_head(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, queries: slice, keys: slice
) -> tuple[Tensor, Tensor, Tensor]:
    """(K, T * G, D), (K, S, D), (K, S, D): one product serves all queries of a key-value head."""
    num_kv_heads, width = key_TKD.shape[1:]
    query_TKGD = query_THD[queries].view(
        -1, num_kv_heads, query_THD.shape[1] // num_kv_heads, width
    )
    query = query_TKGD.transpose(0, 1).reshape(num_kv_heads, -1, width)
    return query, key_TKD[keys].transpose(0, 1), value_TKD[keys].transpose(0, 1)


def _put(output_THD: Tensor, queries: slice, by_kv_head: Tensor) -> None:
    """Write (K, T * G, D) back to its tokens."""
    place_THD = output_THD[queries]
    num_tokens, num_heads, width = place_THD.shape
    num_kv_heads = len(by_kv_head)
    by_head_KTGD = by_kv_head.view(num_kv_heads, num_tokens, num_heads // num_kv_heads, width)
    place_THD.view(num_tokens, num_kv_heads, -1, width).copy_(by_head_KTGD.transpose(0, 1))


def _probabilities(query: Tensor, key_KSD: Tensor, num_queries: int) -> Tensor:
    """(K, T * G, S) of scaled queries; the last key belongs to the last query."""
    scores = query @ key_KSD.mT
    by_query_KTGS = scores.view(len(scores), num_queries, -1, scores.shape[-1])
    own_KTGT = by_query_KTGS[..., -num_queries:]
    later_TT = torch.full((num_queries, num_queries), -torch.inf, dtype=scores.dtype).triu_(1)
    own_KTGT += later_TT[:, None]
    return torch.softmax(scores, dim=-1)


def _attend_varlen(
    query_THD: Tensor, key_TKD: Tensor, value_TKD: Tensor, bounds: DocumentBounds, scale: float
) -> Tensor:
    """One kernel for all documents; bf16 or fp16 only. No GPU has run it yet: CI has none."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415  loads GPU kernels

    longest = max(bounds.lengths)
    assert bounds.starts is not None
    output_THD = varlen_attn(
        query_THD,
        key_TKD,
        value_TKD,
        bounds.starts,
        bounds.starts,
        longest,
        longest,
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=True,
    )
    assert isinstance(output_THD, Tensor)
    return output_THD
