"""
In which type a base model is multiplied. On a GPU bf16. On a CPU bf16 if the weights are stored so
(nothing of them is lost) and its cores multiply it natively, at about twice the speed of fp32; else
fp32, at the speed of the machine as long as it is fp32: torch's precision "medium" hands products
to oneDNN, which with AVX-512 is up to 1.7 times faster than MKL and still fp32, and with Intel's
AMX rounds the factors to bf16. Which of the two a CPU does is measured here, not deduced from its
name.

Source: https://docs.pytorch.org/docs/stable/generated/torch.set_float32_matmul_precision.html
"""

from typing import Final

import torch

_WORST_OF_FP32: Final = 1e-5
"""Relative to the largest entry; measured 5e-7 for fp32 and 2e-3 for factors rounded to bf16."""
NAMES: Final = {torch.bfloat16: "bf16", torch.float32: "fp32"}


def dtype_for(stored: torch.dtype, device: torch.device) -> torch.dtype:
    """
    Args:
        stored: the type of the base model's weights in their file.
    """
    if device.type == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if stored == torch.bfloat16 and _multiplies_bf16() else torch.float32


def _multiplies_bf16() -> bool:
    """Without such instructions bf16 is emulated, several times slower than fp32."""
    # torch has no public name for it; without the private one we stay with fp32.
    asks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asks)


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
