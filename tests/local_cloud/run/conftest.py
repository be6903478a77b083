"""Official clients, by each transport."""

import pytest
from local_cloud.run.running import TRANSPORTS, Clients


@pytest.fixture(params=TRANSPORTS)
def clients(request, cloud) -> Clients:
    return Clients(cloud, request.param)


@pytest.fixture
def jobs(clients):
    return clients.jobs


@pytest.fixture
def executions(clients):
    return clients.executions
