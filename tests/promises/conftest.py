import pytest
from running_stack import RunningStack


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    running = RunningStack(tmp_path_factory.mktemp("stack"))
    yield running
    running.down()


@pytest.fixture
def own_stack(tmp_path):
    """A stack of one test's own, to kill and to start again."""
    made = []

    def make(*options: str) -> RunningStack:
        made.append(RunningStack(tmp_path, *options))
        return made[-1]

    yield make
    for running in made:
        running.down()
