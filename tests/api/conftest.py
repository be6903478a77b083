import pytest
from api_world import Api


@pytest.fixture
def api(world):
    made = Api(world)
    yield made
    made.close()
