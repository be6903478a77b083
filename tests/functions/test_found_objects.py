"""What the sweep found is announced on a topic of its own, and believed from nowhere else."""

import base64

import pytest

from sublet.codec import encode
from sublet.datasets import Dataset
from sublet.events import ObjectFound
from sublet.gcp.publisher import topic_of
from sublet.intake.envelopes import FOUND_TOPIC
from sublet.names import AccountName
from sublet.quarantine import Quarantine


@pytest.fixture
def found(world):
    def push(version, subscription: str, account="acme"):
        fact = ObjectFound(
            account=AccountName.of(account), object=version, found_at=world.clock.now()
        )
        message = {
            "attributes": {"ce-type": ObjectFound.type, "ce-id": "1"},
            "data": base64.b64encode(encode(fact)).decode(),
        }
        return {"subscription": f"projects/p/subscriptions/{subscription}", "message": message}

    return push


def test_an_object_that_the_sweep_found_is_registered(world, functions, found):
    version = world.drop()
    assert functions.post("register-dataset", found(version, FOUND_TOPIC)) == 204
    assert world.the(Dataset).object == version


@pytest.mark.parametrize("subscription", ["sublet-objects-acme", "sublet-objects-evil", "other"])
def test_the_same_words_in_another_channel_are_quarantined(world, functions, found, subscription):
    """Whoever may publish to a tenant's topic must not name another account."""
    assert functions.post("register-dataset", found(world.drop(), subscription)) == 204
    assert world.all(Dataset) == []
    assert world.the(Quarantine).kind == "malformed"


def test_the_topic_has_the_name_that_its_type_gives_it():
    assert topic_of(ObjectFound) == FOUND_TOPIC


def test_a_sweep_answers_with_its_report(world, functions):
    world.drop()
    world.advance(hours=2)
    answer = functions.ring("sweep-leases?dryRun")
    assert answer["dryRun"] is True and answer["repairs"] == {"prefix listed": 1}
    assert functions.ring("sweep-leases")["repairs"] == {"object found": 1}
