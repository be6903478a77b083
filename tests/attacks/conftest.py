"""A world over a local cloud of its own, with one honest tenant and one that is not."""

import pytest
from enforced_world import EnforcedWorld

from sublet.names import AccountName

EVIL = AccountName.of("evil")


@pytest.fixture
def world(own_cloud, monkeypatch):
    """acme, its bucket acme-data with the grants that we ask for, and a watch on data/."""
    running = own_cloud()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.addresses.storage)
    made = EnforcedWorld(running)
    made.acme = made.make_account()
    made.make_bucket()
    made.watch()
    return made


@pytest.fixture
def evil(world):
    """Another tenant of the same platform, who declares nothing of acme's."""
    return world.make_account(EVIL, project_numbers=())


@pytest.fixture
def trainer(world):
    """A training of acme's that has just claimed its lease; what it reads is world.version."""
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    world.assignment = container.claim()
    return container
