"""How what was made on the CPU gets to the device that computes with it."""

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """
    To a GPU from memory that it can read by itself, so that the CPU does not wait until it has done
    all that it was given before.

    Source: https://docs.pytorch.org/tutorials/intermediate/pinmem_nonblock.html
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
