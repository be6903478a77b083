"""Fixtures of the trainer's tests: base models, and the world around a trainer."""

import os
from pathlib import Path

import pytest
import torch
from trainer_world import Fault, World

from sublet_trainer.base_models import prepare

# A step of the tiny model is too little for two cores: they would wait for each other. The bits of
# a sum depend on it, so the trainers that are processes get it too.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    prepare("tiny-random", folder)
    return folder


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


@pytest.fixture
def world(models, new_world):
    return new_world(models)


@pytest.fixture
def fault(world):
    """Called as fault("GET", "/part/of/path", status=503, times=2)."""

    def add(method, path, **what):
        world.faults.append(Fault(method, path, **what))

    return add
