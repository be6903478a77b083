"""
A malformed, forged or oversized event is answered 2xx, quarantined and counted: never a redelivery
loop.
"""

import json

import pytest

from sublet.datasets import Dataset
from sublet.errors import TryAgain
from sublet.events import TrainingFinished, TrainingRequested
from sublet.jobs import Job
from sublet.leases import LeaseState
from sublet.names import JobName
from sublet.quarantine import Quarantine

REGISTER = "register-dataset"


def quarantined(world) -> dict[str, int]:
    return {q.kind: q.count for q in world.all(Quarantine)}


def test_a_notification_of_the_bucket_registers_the_dataset(world, functions, notification):
    version = world.drop()
    assert functions.post(REGISTER, notification(version)) == 204
    assert world.the(Dataset).object == version


def test_an_eventarc_event_registers_the_same_dataset(world, functions, notification, eventarc):
    version = world.drop()
    headers, body = eventarc(version)
    assert functions.post(REGISTER, body, **headers) == 204
    assert functions.post(REGISTER, notification(version)) == 204
    assert world.the(Dataset).object == version


def test_a_structured_event_is_the_same_event(world, functions, eventarc):
    version = world.drop()
    headers, body = eventarc(version)
    envelope = {key.removeprefix("ce-"): value for key, value in headers.items()} | {"data": body}
    answer = functions.post(REGISTER, envelope, **{"Content-Type": "application/cloudevents+json"})
    assert answer == 204 and world.the(Dataset).object == version


def test_the_account_is_that_of_the_subscription_and_not_what_a_message_says(
    world, functions, notification
):
    version = world.drop()
    push = notification(version, subscription="sublet-objects-evil", account="acme")
    assert functions.post(REGISTER, push) == 204
    assert world.all(Dataset) == [] and quarantined(world) == {}


@pytest.mark.parametrize(
    "event_type", ["OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE"]
)
def test_another_kind_of_change_is_acknowledged_and_nothing_else(
    world, functions, notification, event_type
):
    assert functions.post(REGISTER, notification(world.drop(), event_type=event_type)) == 204
    assert world.all(Dataset) == [] and quarantined(world) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[1]",
        b"null",
        b"{}",
        b'{"message": {}}',
        b'{"message": {"attributes": []}, "subscription": "s"}',
        b'{"message": {"data": "%%%"}, "subscription": "s"}',
        b'{"message": {"attributes": {"a": 1}}, "subscription": "s"}',
        b'{"a": NaN}',
        b'{"message": 1, "message": 2}',
        b"[" * 100_000 + b"]" * 100_000,
        b"9" * 5000,
        b"\xff\xfe",
        b'{"bucket": "acme-data", "name": "data/x.jsonl", "generation": "1"}',
    ],
)
def test_garbage_is_acknowledged_quarantined_and_counted(world, functions, body):
    assert functions.post(REGISTER, body) == 204
    assert functions.post(REGISTER, body) == 204
    assert quarantined(world) == {"malformed": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"objectGeneration": "0"},
        {"objectGeneration": "abc"},
        {"objectGeneration": "9" * 30},
        {"objectId": "data/../secret"},
        {"objectId": "data/a'b"},
        {"bucketId": "Not_A_Bucket"},
    ],
)
def test_a_notification_of_an_impossible_object_is_quarantined(
    world, functions, notification, changes
):
    assert functions.post(REGISTER, notification(world.drop(), **changes)) == 204
    assert quarantined(world) == {"malformed": 1} and world.all(Dataset) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ce-type": "google.cloud.storage.object.v1.deleted"},
        {"ce-source": "//storage.googleapis.com/projects/_/buckets/other"},
        {"ce-subject": "objects/other"},
        {"ce-specversion": "9.9"},
        {"generation": 5},
        {"bucket": None},
    ],
)
def test_an_event_that_contradicts_itself_is_quarantined(world, functions, eventarc, changes):
    headers, body = eventarc(world.drop(), **changes)
    assert functions.post(REGISTER, body, **headers) == 204
    assert quarantined(world) == {"malformed": 1} and world.all(Dataset) == []


@pytest.mark.parametrize("missing", ["ce-id", "ce-source", "ce-type"])
def test_an_event_without_what_every_event_has_is_quarantined(world, functions, eventarc, missing):
    headers, body = eventarc(world.drop())
    del headers[missing]
    assert functions.post(REGISTER, body, **headers) == 204
    assert quarantined(world) == {"malformed": 1}


@pytest.mark.parametrize("token", [None, "bad", "stranger"])
@pytest.mark.parametrize("unit", [REGISTER, "start-training", "revoke-access", "sweep-leases"])
def test_a_forged_delivery_does_nothing_and_does_not_come_again(
    world, functions, notification, unit, token
):
    assert functions.post(unit, notification(world.drop()), token=token) == 204
    assert quarantined(world) == {"forged": 1} and world.all(Dataset) == []


def test_an_oversized_event_is_quarantined_without_being_read(world, functions):
    assert functions.post(REGISTER, b'{"a": "' + b"x" * 2**21 + b'"}') == 204
    assert quarantined(world) == {"malformed": 1}
    assert world.the(Quarantine).last_size_bytes == 0


def test_a_flood_fills_one_record_and_keeps_no_content(world, functions):
    for number in range(50):
        functions.post(REGISTER, f"secret-{number}".encode())
    assert world.the(Quarantine).count == 50
    assert "secret" not in repr(world.the(Quarantine))


def test_a_passing_fault_is_asked_for_again(world, functions, notification):
    def busy(*_):
        raise TryAgain("Google is busy")

    world.cloud.metadata = busy
    world.verification._inspector = type(
        "I", (), {"metadata": staticmethod(busy), "policy": staticmethod(busy)}
    )
    assert functions.post(REGISTER, notification(world.drop())) == 503
    assert quarantined(world) == {}


def test_a_probe_of_the_platform_is_no_event(world, functions):
    assert functions.get(REGISTER) == 405
    assert quarantined(world) == {}


def test_the_whole_way_by_messages_each_delivered_twice(world, functions, notification, fact_push):
    version = world.drop()
    for _ in range(2):
        functions.post(REGISTER, notification(version))
    job = world.the(Job)
    request = TrainingRequested(job=job.name, requested_at=world.clock.now())
    for _ in range(2):
        assert functions.post("start-training", fact_push(request)) == 204
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    finished = next(f for f in world.publisher.waiting if isinstance(f, TrainingFinished))
    for _ in range(2):
        assert functions.post("revoke-access", fact_push(finished)) == 204
    assert world.lease_of().state is LeaseState.REVOKED
    assert len(world.runner.started) == 1


def test_a_fact_of_another_kind_is_quarantined(world, functions, fact_push):
    request = TrainingRequested(
        job=JobName.parse("accounts/acme/supervisedFineTuningJobs/j"),
        requested_at=world.clock.now(),
    )
    assert functions.post("revoke-access", fact_push(request)) == 204
    assert quarantined(world) == {"malformed": 1}


def test_a_fact_with_a_field_missing_is_quarantined_and_the_field_is_named(
    world, functions, fact_push
):
    request = TrainingRequested(
        job=JobName.parse("accounts/acme/supervisedFineTuningJobs/j"),
        requested_at=world.clock.now(),
    )
    push = json.loads(json.dumps(fact_push(request)))
    push["message"]["data"] = "e30="
    assert functions.post("start-training", push) == 204
    assert "job" in world.the(Quarantine).last_reason
