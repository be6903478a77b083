"""The two worlds that tests live in: one of memory twins, and a local cloud with real clients."""

import pytest
from memory_world import World
from running_cloud import RunningCloud


@pytest.fixture
def world() -> World:
    """An account, its bucket with the grants we ask for, and a watch on data/."""
    made = World()
    made.make_account()
    made.make_bucket()
    made.watch()
    return made


@pytest.fixture
def make_world():
    return World


@pytest.fixture(scope="session")
def running(tmp_path_factory):
    cloud = RunningCloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(running, monkeypatch) -> RunningCloud:
    """The session's cloud; nothing in the environment points anywhere else."""
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    return running


@pytest.fixture
def own_cloud(tmp_path):
    """A cloud of one test's own, to stop, start and deny."""
    made = []

    def make(**options) -> RunningCloud:
        made.append(RunningCloud(tmp_path, **options))
        return made[-1]

    yield make
    for cloud in made:
        cloud.stop()
