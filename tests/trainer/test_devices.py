"""A process computes on its GPU if there is one, and never on the CPU beside one."""

import pytest
import torch

from sublet.errors import FailedPrecondition
from sublet_trainer import devices
from sublet_trainer.devices import device_of


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine by its devices, its driver and its torch."""

    def made(*, gpus=0, is_usable=False, built_for="13.0", capability=(9, 0)):
        for number in range(gpus):
            (tmp_path / f"nvidia{number}").touch()
        chosen = []
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(devices, "_DEVICES", tmp_path)
        monkeypatch.setattr(torch.version, "cuda", built_for)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: is_usable)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA X")
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        return chosen

    return made


def test_a_machine_without_a_gpu_computes_on_its_cpu(machine):
    machine()
    assert device_of() == torch.device("cpu")


def test_each_process_of_a_machine_has_a_gpu_of_its_own(machine):
    chosen = machine(gpus=2, is_usable=True)
    assert [device_of(), device_of(1)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert chosen == [0, 1]


def test_a_gpu_that_torch_cannot_use_is_no_reason_to_train_on_the_cpu_at_its_price(machine):
    machine(gpus=1)
    with pytest.raises(FailedPrecondition, match=r"expected a driver for CUDA 13\.0, or an image"):
        device_of()


def test_a_gpu_that_is_too_old_is_named_before_anything_is_read(machine):
    machine(gpus=1, is_usable=True, capability=(7, 5))
    expected = r"got NVIDIA X, of compute capability 7\.5; expected 8\.0"
    with pytest.raises(FailedPrecondition, match=expected):
        device_of()


@pytest.mark.parametrize("visible", ["", "-1"])
def test_who_hides_the_gpu_means_the_cpu(machine, monkeypatch, visible):
    machine(gpus=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_of() == torch.device("cpu")


def test_a_torch_that_is_built_for_cpus_computes_on_one(machine):
    """Who installed it beside a GPU chose it."""
    machine(gpus=1, built_for=None)
    assert device_of() == torch.device("cpu")
