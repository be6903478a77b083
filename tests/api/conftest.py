import pytest
from api_world import Api


@pytest.fixture
def api(world) -> Api:
    return Api(world)
