"""
Tensors that may be split between ranks, without asking each time whether they are: what a rank
holds whole is its own whole and its own piece.
"""

import torch
from torch import Tensor


def is_split(tensor: Tensor) -> bool:
    """Without DTensor's name, whose import costs a trainer that splits nothing half a second."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of it, on every rank; if it is split, every rank must ask, and lends its piece."""
    return tensor.full_tensor() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def local(tensor: Tensor) -> Tensor:
    """One rank's own piece; it shares the memory."""
    return tensor.to_local() if is_split(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def put(tensor: Tensor, content: Tensor) -> None:
    """Give a tensor its values; each rank keeps its piece of what all have whole."""
    content = content.to(tensor.device, tensor.dtype)
    tensor.copy_(as_split(tensor, content) if is_split(tensor) else content)


def as_split(tensor: Tensor, content: Tensor) -> Tensor:
    """`content` in pieces, placed as those of `tensor` are."""
    from torch.distributed.tensor import DTensor, distribute_tensor  # noqa: PLC0415

    assert isinstance(tensor, DTensor)
    return distribute_tensor(content, tensor.device_mesh, tensor.placements, src_data_rank=None)
