"""
A GPU where there is none: tensors that say they are on cuda:0, and are computed on the CPU. What a
GPU would refuse is refused (operands on two devices, what torch's own kernels there do not take),
and each time that the CPU would wait for it is written down. Its speed, its memory and the order in
which it adds are not pretended; nor are streams, so nothing of NCCL or FSDP. Module.to() makes new
parameters here, so that what was tied is so no more.

Source: https://docs.pytorch.org/docs/stable/notes/extending.html#extending-torch-with-a-tensor-wrapper-type
"""

import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.attention.varlen  # its operations
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
aten = torch.ops.aten


def some_gpu():
    """The machine's own, where it shows one (CUDA_VISIBLE_DEVICES); else one that is pretended."""
    return nullcontext() if torch.cuda.is_available() else pretended_gpu()


@contextmanager
def pretended_gpu():
    """What torch.tensor() makes comes to us before it goes anywhere, as to FakeTensorMode."""
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # noqa: FBT003  it takes no name
    try:
        with (
            patch.object(torch.cuda, "_lazy_init"),
            patch.object(torch.cuda, "get_rng_state", lambda _: torch.get_rng_state()),
            patch.object(torch.cuda, "set_rng_state", lambda *_: None),
            PretendedGpu() as gpu,
        ):
            yield gpu
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


class OnGpu(Tensor):
    """To torch's engine a tensor without values, to Python one on a GPU; `held` has the values."""

    device = property(lambda _: GPU)
    is_cuda = property(lambda _: True)
    is_meta = property(lambda _: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(
            cls, held.shape, dtype=held.dtype, device="meta", **layout
        )
        made.held = held
        return made

    def __repr__(self):
        return f"OnGpu({self.held})"

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):
        self.held = other.held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} is asked of a GPU that is not pretended any more")


class PretendedGpu(TorchDispatchMode):
    """`waits` counts by the trainer's files that ask, and what they ask for."""

    def __init__(self):
        super().__init__()
        self.waits = Counter()
        self._pinned = WeakTensorKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        is_here = any(isinstance(one, OnGpu) for one in tensors)
        goes_here = self._goes_here(func, kwargs.get("device"), is_here=is_here)
        if func not in _CROSS:
            verify_together(func, tensors)
        elif _CROSS[func](tensors, is_here, goes_here) and not self._needs_no_wait(tensors, kwargs):
            self.waits[f"{_asker()} {func.overloadpacket.__name__}"] += 1
        if verify_taken := _VERIFY.get(func):
            verify_taken(*args, **kwargs)
        made = self._made(func, args, kwargs, goes_here=goes_here)
        if not goes_here:
            return made
        made = tree_map_only(
            Tensor, lambda one: one if isinstance(one, OnGpu) else OnGpu(one), made
        )
        return return_and_correct_aliasing(func, args, kwargs, made) if is_here else made

    @staticmethod
    def _goes_here(func, device, *, is_here):
        if device is None:
            return is_here
        # Torch's own derivatives make zeros where the engine says that a tensor is.
        is_derivative = torch.device(device).type == "meta" and func is not aten.empty.memory_format
        return is_derivative or torch.device(device).type == "cuda"

    def _needs_no_wait(self, tensors, kwargs):
        return kwargs.get("non_blocking") and tensors[0] in self._pinned

    def _made(self, func, args, kwargs, *, goes_here):
        args, kwargs = tree_map_only(OnGpu, lambda one: one.held, (args, kwargs))
        if goes_here and "device" in kwargs:
            kwargs["device"] = CPU
        made = _KERNELS.get(func, func)(*args, **kwargs)
        if func is aten._pin_memory.default:
            self._pinned[made] = True
        return made.clone() if func is aten._to_copy.default and made is args[0] else made


def _apart(tensors, *_):
    return len({isinstance(one, OnGpu) for one in tensors}) > 1


def _from_here(tensors, is_here, _):
    return is_here


_CROSS = {
    aten._to_copy.default: lambda _, is_here, goes_here: is_here != goes_here,
    aten.copy_.default: _apart,
    aten._local_scalar_dense.default: _from_here,
    aten.nonzero.default: _from_here,
}
"""What may take a tensor from one device to the other, and when it does."""


def _asker():
    frame = sys._getframe()
    while frame and "sublet_trainer" not in frame.f_code.co_filename:
        frame = frame.f_back
    return Path(frame.f_code.co_filename).name if frame else "a test"


def verify_together(func, tensors):
    """A number on the CPU goes along with anything."""
    if _apart([one for one in tensors if isinstance(one, OnGpu) or one.dim()]):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device")


# --- kernels that only a GPU has ------------------------------------------------------------------


def verify(holds, what):
    if not holds:
        raise RuntimeError(f"a GPU's kernel expects {what}")


def verify_varlen(query, key, value, starts_q, starts_k, *longest, **__):
    """
    Source: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp
    (mha_varlen_fwd)
    """
    for one in (query, key, value):
        verify(one.dtype in (torch.bfloat16, torch.float16), f"bf16 or fp16, got {one.dtype}")
        verify(one.dtype == query.dtype and one.stride(-1) == 1, "one type, contiguous heads")
        width = one.shape[2]
        verify(width % 8 == 0 and width <= 256, f"other heads than {width}")
        verify(not 192 < width <= 224, f"other heads than {width}, if it is an L4")
    verify(key.shape == value.shape and query.shape[1] % key.shape[1] == 0, "heads in groups")
    for starts, length, of in ((starts_q, longest[0], query), (starts_k, longest[1], key)):
        verify(isinstance(starts, OnGpu) and starts.dtype == torch.int32, "starts there, int32")
        verify(starts.is_contiguous() and len(starts) == len(starts_q), "as many of both")
        verify(starts.held[0] == 0 and starts.held[-1] == len(of), "the first and the last")
        verify(type(length) is int and length == starts.held.diff().max(), "the longest, here")


def verify_adamw(weights, gradients, first, second, _, steps, **__):
    """
    Source: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cuda/FusedAdamWKernel.cu
    (check_fast_path_restrictions)
    """
    for parts in zip(weights, gradients, first, second, strict=True):
        alike = {(type(one), one.dtype, one.shape, one.stride()) for one in parts}
        verify(len(alike) == 1, f"weight, gradient and moments alike, got {alike}")
    verify({(type(one), one.dtype) for one in steps} == {(OnGpu, torch.float32)}, "steps there")


def varlen(query, key, value, starts_q, starts_k, *rest):
    _, _, is_causal, scale = rest[:4]
    assert is_causal
    outputs = [
        (_probabilities(q, k, scale) @ v).transpose(0, 1)
        for q, k, v in _by_document(starts_q, starts_k, [query], [key, value])
    ]
    no_sums, no_dice = torch.zeros(query.shape[1::-1]), torch.zeros(2, dtype=torch.uint64)
    return torch.cat(outputs).to(query.dtype), no_sums, no_dice


def varlen_backward(grad, query, key, value, *rest):
    _, _, starts_q, starts_k = rest[:4]
    scale, made = rest[8], ([], [], [])
    for g, q, k, v in _by_document(starts_q, starts_k, [grad, query], [key, value]):
        probabilities, slope = _probabilities(q, k, scale), g @ v.mT
        slope = scale * probabilities * (slope - (slope * probabilities).sum(-1, keepdim=True))
        of_keys = [
            one.unflatten(0, (key.shape[1], -1)).sum(1)
            for one in (slope.mT @ q, probabilities.mT @ g)
        ]
        for parts, one in zip(made, (slope @ k, *of_keys), strict=True):
            parts.append(one.transpose(0, 1))
    return tuple(torch.cat(parts).to(query.dtype) for parts in made)


def _by_document(starts_q, starts_k, by_query, by_key):
    """Of each its part, (H, T, D), fp32; each key-value head as often as query heads share it."""
    num_alike = by_query[0].shape[1] // by_key[0].shape[1]
    for queries, keys in zip(pairwise(starts_q.tolist()), pairwise(starts_k.tolist()), strict=True):
        yield [one[slice(*queries)].float().transpose(0, 1) for one in by_query] + [
            one[slice(*keys)].float().transpose(0, 1).repeat_interleave(num_alike, 0)
            for one in by_key
        ]


def _probabilities(query, key, scale):
    scores = scale * query @ key.mT
    num_queries, num_keys = scores.shape[1:]
    is_seen = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    return scores.where(is_seen, -torch.inf).softmax(-1)


def index_add(into, dim, index, source, *, alpha=1):
    """
    Each is added by itself and rounded to the tensors' type; a CPU adds bf16 up in fp32 first.

    Source: https://github.com/pytorch/pytorch/blob/main/aten/src/ATen/native/cuda/Indexing.cu
    (ReduceAdd)
    """
    into = into.clone()
    if source.dtype != torch.bfloat16:
        return into.index_add_(dim, index, source, alpha=alpha)
    assert dim == 0
    for place, one in zip(index.tolist(), source, strict=True):
        into[place] += alpha * one
    return into


_VARLEN = torch.ops.torch_attn._varlen_attn.default
_VERIFY = {_VARLEN: verify_varlen, aten._fused_adamw_.default: verify_adamw}
_KERNELS = {
    _VARLEN: varlen,
    aten.index_add.default: index_add,
    aten.index_add_.default: lambda into, *rest: into.copy_(index_add(into, *rest)),
    torch.ops.torch_attn._varlen_attn_backward.default: varlen_backward,
    aten.is_pinned.default: lambda *_: False,
    aten._pin_memory.default: lambda one, *_: one.clone(),
}
