"""The worlds that tests live in: memory twins, a local cloud with real clients, a whole stack."""

import gc
import os

import pytest
from memory_world import World
from running_cloud import ForeignCloud, RunningCloud
from running_stack import RunningStack
from together import Together, longest_first, verify_stacks_are_together


@pytest.fixture
def world(make_world) -> World:
    """An account, its bucket with the grants we ask for, and a watch on data/."""
    made = make_world()
    made.make_account()
    made.make_bucket()
    made.watch()
    return made


@pytest.fixture
def make_world():
    return World


@pytest.fixture(scope="session")
def server():
    from served_api import ServedApi

    serving = ServedApi()
    yield serving
    serving.stop()


@pytest.fixture
def shared(make_world):
    """A world whose one data account is lit for a training, `trainer`, and for all others."""
    made = make_world()
    made.make_account(num_data_accounts=1)
    made.make_bucket()
    made.watch()
    made.announce(made.drop())
    made.advance(minutes=2)
    made.deliver()
    made.trainer = made.container()
    made.trainer.claim()
    return made


@pytest.fixture
def served(world, server):
    """The control plane over this test's world, behind a real socket."""
    from api_world import Api

    made = Api(world)
    server.app = made.app
    yield made
    made.close()


os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Workers are more than cores: torch's second thread, in any process, takes one from another."""
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
"""What tests hold a training to is a CPU's: a GPU adds in another order. Who names one tests it."""
gc.disable()
"""Until all is imported and collected: that stays, and walking through it is 5 s of CPU."""


def pytest_collection_finish(session):
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    verify_stacks_are_together(items)
    longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


def pytest_addoption(parser):
    parser.addoption("--against", metavar="URL", help="ask another Cloud Storage emulator instead")
    parser.addoption(
        "--on",
        choices=("sublet", "google"),
        default="sublet",
        help="whose Pub/Sub and registry the stacks run on: ours, or Google's emulators",
    )


@pytest.fixture(scope="session")
def running(request, tmp_path_factory):
    against = request.config.getoption("--against")
    cloud = ForeignCloud(against) if against else RunningCloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    cloud.stop()


@pytest.fixture
def cloud(running, monkeypatch) -> RunningCloud:
    """The session's cloud; nothing in the environment points anywhere else."""
    for variable in ("STORAGE_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(variable, raising=False)
    return running


@pytest.fixture
def own_cloud(request, tmp_path):
    """A cloud of one test's own, to stop, start and deny."""
    if request.config.getoption("--against"):
        pytest.skip("stops and starts our own cloud")
    made = []

    def make(**options) -> RunningCloud:
        made.append(RunningCloud(tmp_path, **options))
        return made[-1]

    yield make
    for cloud in made:
        cloud.stop()


@pytest.fixture(scope="session")
def on(request) -> str:
    """Whose Pub/Sub and registry the stacks run on: ours, or Google's, if both are installed."""
    on = request.config.getoption("--on")
    if on == "google":
        from sublet.errors import FailedPrecondition
        from sublet.local.firestore import GOOGLE_FIRESTORE
        from sublet.local.pubsub.external.emulators import GOOGLE_PUBSUB

        try:
            GOOGLE_PUBSUB.find()
            GOOGLE_FIRESTORE.find()
        except FailedPrecondition as error:
            pytest.skip(f"--on google: {error}")
    return on


@pytest.fixture(scope="session")
def stack(on, tmp_path_factory):
    registry = {"sublet": "sqlite", "google": "firestore"}[on]
    options = (f"--pubsub={on}", f"--registry={registry}")
    running = RunningStack(tmp_path_factory.mktemp("stack"), *options)
    yield running
    running.end()


@pytest.fixture(scope="session")
def trained(stack):
    """One job for all tests that only look at what it left."""
    return stack.trained()


@pytest.fixture
def own_stack(on, tmp_path):
    """
    A stack of one test's own, to kill and to start again; with its records in a file on Google's
    Pub/Sub too, since those in the Firestore emulator end with it, and nothing could go on.
    """
    made = []

    def make(*options: str) -> RunningStack:
        made.append(RunningStack(tmp_path, f"--pubsub={on}", *options))
        return made[-1]

    yield make
    for running in made:
        running.down()
