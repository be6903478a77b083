"""Fixtures of the trainer's tests: base models, and the world around a trainer."""

from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore
from trainer_steps import CPU
from trainer_world import Fault, World
from trainer_zygote import Zygote

from sublet_trainer.catalogue.base_models import prepare
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.models.adapter import LoraModel


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """A tiny model's products are done before a second thread has woken up."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    prepare("tiny-random", folder)
    return folder


@pytest.fixture(scope="session")
def folder(models) -> Path:
    return models / "tiny-random"


@pytest.fixture(scope="session")
def tokeniser(folder):
    return Tokeniser(BaseTokenizer.load(folder), max_tokens=1000)


@pytest.fixture
def fresh(folder):
    """An adapter as PEFT begins one: it changes nothing, and hides half of all bugs."""
    return LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)


@pytest.fixture
def moved(fresh):
    """Far enough from where it started that every ratio is another."""
    torch.manual_seed(1)
    for parameter in fresh.parameters().values():
        torch.nn.init.normal_(parameter, std=0.05)
    return fresh


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory) -> Path:
    """The real model: 3 s of CPU, 270 MB."""
    return prepare("smollm2-135m-instruct", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def new_world():
    worlds = []

    def make(models):
        worlds.append(World(models))
        return worlds[-1]

    yield make
    for world in worlds:
        world.server.shutdown()
        world.server.server_close()


@pytest.fixture(scope="session")
def zygote():
    made = Zygote()
    yield made
    made.end()


@pytest.fixture
def world(models, new_world):
    return new_world(models)


@pytest.fixture
def fault(world):
    """Called as fault("GET", "/part/of/path", status=503, times=2)."""

    def add(method, path, **what):
        world.faults.append(Fault(method, path, **what))

    return add


@pytest.fixture(scope="session")
def ranks_of():
    """What torchrun tells each of its processes; like its agent, we keep the store."""
    stores = []

    def make(world, count, **environ):
        stores.append(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        return _told(world, count, MASTER_PORT=str(stores[-1].port), **environ)

    return make


def _told(world, count, **environ):
    return [
        world.environ(
            TORCHELASTIC_RUN_ID="run",
            RANK=str(index),
            WORLD_SIZE=str(count),
            LOCAL_RANK=str(index),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            **environ,
        )
        for index in range(count)
    ]
