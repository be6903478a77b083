"""Weights that are equal but for the order of additions."""

from collections.abc import Mapping

from torch import Tensor


def assert_near(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, within: float = 1e-4
) -> None:
    """
    Tensor by tensor, as a whole: AdamW makes much of the last bits of a gradient that is nearly
    zero.
    """
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (actual[name] - tensor).norm() <= within * tensor.norm(), name
