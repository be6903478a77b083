"""A model is multiplied in the type that this machine multiplies sooner, if it loses nothing."""

import pytest
import torch

from sublet_trainer.models.precision import (
    dtype_for,
    dtype_for_sampling,
    use_fastest_true_fp32,
)

CPU = torch.device("cpu")
BF16, FP32 = torch.bfloat16, torch.float32


WAYS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""To multiply bf16, and torch's own questions for them."""


@pytest.fixture(params=WAYS)
def multiplies_bf16(request, monkeypatch):
    for way in WAYS:
        monkeypatch.setattr(torch.cpu, way, lambda answer=way == request.param: answer)


@pytest.fixture
def emulates_bf16(monkeypatch):
    for way in WAYS:
        monkeypatch.setattr(torch.cpu, way, lambda: False)


@pytest.mark.parametrize(("bf16_s", "expected"), [(1.0, BF16), (4.0, FP32)])
def test_bf16_is_taken_where_it_is_faster_and_not_where_a_cpu_only_has_it(
    multiplies_bf16, bf16_s, expected
):
    """An Intel Xeon with AVX512_BF16 and its AMX masked takes twice as long for it as for fp32."""
    assert dtype_for(BF16, CPU, product_s={BF16: bf16_s, FP32: 2.0}.get) == expected


def test_weights_that_are_stored_in_fp32_lose_nothing(multiplies_bf16):
    assert dtype_for(FP32, CPU, product_s={BF16: 1.0, FP32: 2.0}.get) == FP32


def test_where_bf16_would_be_emulated_it_is_not_even_tried(emulates_bf16):
    assert dtype_for(BF16, CPU, product_s={}.__getitem__) == FP32


def test_a_gpu_multiplies_bf16():
    assert dtype_for(FP32, torch.device("cuda")) == BF16
    assert dtype_for_sampling(FP32, torch.device("cuda")) == BF16


def test_sampling_waits_for_the_weights_so_it_takes_what_is_least_to_read(multiplies_bf16):
    """On the Xeon above too: 89 tokens a second in bf16, 51 in fp32."""
    assert dtype_for_sampling(BF16, CPU) == BF16
    assert dtype_for_sampling(FP32, CPU) == FP32


def test_sampling_does_not_emulate_bf16_either(emulates_bf16):
    assert dtype_for_sampling(BF16, CPU) == FP32


def test_fp32_is_fp32():
    """Whatever a machine's fastest product of it would round."""
    use_fastest_true_fp32()
    left, right = torch.randn(2, 300, 300)
    exact = left.double() @ right.double()
    assert (left @ right - exact).abs().max() < 1e-5 * exact.abs().max()


def test_what_nobody_tells_is_measured(multiplies_bf16):
    assert dtype_for(BF16, CPU) in (BF16, FP32)
