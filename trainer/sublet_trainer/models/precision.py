"""
In which type a base model is multiplied. On a GPU bf16. On a CPU bf16 if the weights are stored so
(nothing of them is lost) and its cores multiply it natively and sooner than fp32: some at twice the
speed of fp32, some at half. Else fp32, at the speed of the machine as long as it is fp32: torch's
precision "medium" hands products to oneDNN, which with AVX-512 is up to 1.7 times faster than MKL
and still fp32, and with Intel's AMX rounds the factors to bf16. What a CPU does is measured here,
not deduced from its name; for sampling it need not be.

Source: https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html
"""

from collections.abc import Callable
from time import perf_counter
from typing import Final

import torch

_WORST_OF_FP32: Final = 1e-5
"""Relative to the largest entry; measured 5e-7 for fp32 and 2e-3 for factors rounded to bf16."""
_SIDE, _TIMES = 512, 8
NAMES: Final = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def dtype_for(
    stored: torch.dtype,
    device: torch.device,
    *,
    product_s: Callable[[torch.dtype], float] | None = None,
) -> torch.dtype:
    """
    On a CPU it also chooses how this process multiplies fp32.

    Args:
        stored: the type of the base model's weights in their file.
        product_s: seconds that this machine takes for a product; None measures it.
    """
    product_s = product_s or _product_s
    if device.type == "cuda":
        return torch.bfloat16
    use_fastest_true_fp32()
    may_be_bf16 = stored == torch.bfloat16 and _multiplies_bf16()
    if may_be_bf16 and product_s(torch.bfloat16) < product_s(torch.float32):
        return torch.bfloat16
    return torch.float32


def dtype_for_sampling(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """
    For a token at a time, when a CPU waits for the weights and not for products: of bf16 there is
    half as much to read, however it is multiplied.
    """
    if device.type != "cuda" and stored == torch.bfloat16 and _multiplies_bf16():
        return torch.bfloat16
    return dtype_for(stored, device)


def _multiplies_bf16() -> bool:
    """Without such instructions bf16 is emulated, several times slower than fp32."""
    # torch has no public name for it; without the private one we stay with fp32.
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)


def _product_s(dtype: torch.dtype) -> float:
    """Seconds of a product of two square matrices: the least of several, which is the machine's."""
    left, right = torch.ones(2, _SIDE, _SIDE, dtype=dtype)
    seconds = []
    for _ in range(_TIMES):
        began = perf_counter()
        left @ right
        seconds.append(perf_counter() - began)
    return min(seconds)


def use_fastest_true_fp32() -> None:
    """Choose how this process multiplies fp32 matrices."""
    for precision in ("medium", "highest"):
        torch.set_float32_matmul_precision(precision)
        if _relative_error() < _WORST_OF_FP32:
            break


def _relative_error() -> float:
    source = torch.Generator().manual_seed(0)
    left = torch.randn(256, 2048, generator=source)
    right = torch.randn(2048, 256, generator=source)
    exact = left.double() @ right.double()
    return float(((left @ right).double() - exact).abs().max() / exact.abs().max())
