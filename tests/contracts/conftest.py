import pytest
from running_firestore import RunningFirestore

from sublet.errors import FailedPrecondition
from sublet.local.firestore import GOOGLE_FIRESTORE


@pytest.fixture(scope="session")
def firestore(tmp_path_factory):
    try:
        GOOGLE_FIRESTORE.find()
    except FailedPrecondition as error:
        pytest.skip(str(error))
    running = RunningFirestore(tmp_path_factory.mktemp("firestore"))
    yield running
    running.stop()
