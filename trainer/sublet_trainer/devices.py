"""
What a process computes with: its GPU, or the CPU where the machine has none. A GPU that torch
cannot use ends the training with the reason, for on the CPU beside it, it would run for days at a
GPU's price.
"""

import os
from pathlib import Path
from typing import Final

import torch

from sublet.errors import FailedPrecondition

_DEVICES: Final = Path("/dev")
_OLDEST: Final = (8, 0)
"""Ampere: the first with bf16 and with torch's FlashAttention."""
_ON_THE_CPU: Final = "with CUDA_VISIBLE_DEVICES set to nothing it trains on the CPU"


def device_of(index: int = 0) -> torch.device:
    """
    Args:
        index: of the process among those of its machine, each of which has a GPU of its own.

    Raises:
        FailedPrecondition: there is a GPU, and torch or the trainer cannot use it.
    """
    if torch.cuda.is_available():
        _check_capability(index)
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if _has_gpu() and torch.version.cuda:
        raise FailedPrecondition(
            f"torch {torch.__version__} cannot use this machine's NVIDIA GPU; expected a driver "
            f"for CUDA {torch.version.cuda}, or an image whose torch is built for the driver that "
            f"is there; {_ON_THE_CPU}"
        )
    return torch.device("cpu")


def _check_capability(index: int) -> None:
    if (found := torch.cuda.get_device_capability(index)) < _OLDEST:
        raise FailedPrecondition(
            f"got {torch.cuda.get_device_name(index)}, of compute capability {_shown(found)}; "
            f"expected {_shown(_OLDEST)} (Ampere) or newer; {_ON_THE_CPU}"
        )


def _has_gpu() -> bool:
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(_DEVICES.glob("nvidia[0-9]*"))


def _shown(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
