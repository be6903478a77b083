"""Attacks with messages, and by making work trigger work."""

import json

import pytest
from attacks.catalogue import attack
from flask import Flask, request
from google.auth import jwt
from memory_world import TINY

from sublet.datasets import Dataset, DatasetState
from sublet.errors import InvalidRequest
from sublet.gcp.id_tokens import IdTokenVerifier
from sublet.intake.door import Door
from sublet.intake.envelopes import object_finalized
from sublet.jobs import Job, TrainingSettings
from sublet.names import Email, Generation, ObjectVersion, WatchName
from sublet.quarantine import Quarantine
from sublet.watches import TrainingTemplate, Watch

URL = "https://register-dataset.example"
SENDER = Email("verifier@platform.iam.gserviceaccount.com")
STRANGER = Email("trainer@platform.iam.gserviceaccount.com")


class RegisterDataset:
    """The function behind its door, which knows ID tokens by the local cloud's certificates."""

    def __init__(self, world) -> None:
        self._world = world
        door = Door(
            unit="register-dataset",
            registry=world.registry,
            clock=world.clock,
            verifier=IdTokenVerifier(world.cloud.endpoints.certificates, world.clock),
            audience=URL,
            senders=frozenset({SENDER}),
        )
        app = Flask("sublet-attacks")
        handle = world.registration.handle
        app.add_url_rule(
            "/",
            "register",
            lambda: door.receive(request, object_finalized, handle),
            methods=["POST"],
        )
        self._client = app.test_client()

    def post(self, version, token: str, *, subscription="sublet-objects-acme", **claims) -> int:
        attributes = {
            "bucketId": version.bucket,
            "objectId": version.object,
            "objectGeneration": str(version.generation),
            "eventType": "OBJECT_FINALIZE",
            **claims,
        }
        push = {
            "subscription": f"projects/p/subscriptions/{subscription}",
            "message": {"attributes": attributes, "data": "e30=", "messageId": "1"},
        }
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._client.post("/", data=json.dumps(push), headers=headers).status_code

    def token(self, email: Email, audience: str = URL) -> str:
        def issue(cloud):
            account = cloud.iam.service_accounts.get(email)
            return cloud.id_tokens.issue(email, account.unique_id, audience)

        return self._world._running.do(issue)


@attack(
    11,
    "an event is forged, at the topic or at the function's URL",
    stopped_by="only ID tokens of our sender, for that very function, open its door; the "
    "tenant is that of the subscription; what the message says of the object is read again",
)
def test_forged_event(world, evil):
    function, version = RegisterDataset(world), world.drop()
    good = function.token(SENDER)
    header, payload, signature = good.split(".")
    forged = {
        "no token": "",
        "a stranger's": function.token(STRANGER),
        "for another function": function.token(SENDER, "https://start-training.example"),
        "signed by nobody": f"{header}.{payload}.{signature[::-1]}",
        "no signature at all": f"{header}.{payload}.",
    }
    assert jwt.decode(good, verify=False)["email"] == SENDER
    for what, token in forged.items():
        assert function.post(version, token) == 204, what
    assert world.the(Quarantine).count == len(forged)
    assert function.post(version, good, subscription="sublet-objects-evil") == 204
    assert world.all(Dataset) == []

    assert function.post(version, good) == 204
    assert world.the(Dataset).state is DatasetState.READY


@attack(
    12,
    "events are replayed, doubled, reordered",
    stopped_by="datasets and jobs are named after bucket, object and generation, and created "
    "only if absent",
    stays_open="distinct files are distinct work: whoever may write to a watched prefix can "
    "make its owner train, one file at a time; a watch can be disabled",
)
def test_replay_and_reorder(world):
    function = RegisterDataset(world)
    versions = [world.drop(name=f"data/{number}.jsonl") for number in range(2)]
    token = function.token(SENDER)
    order = [*reversed(versions), *versions, versions[0], *versions]
    assert {function.post(version, token) for version in order} == {204}

    assert {d.object for d in world.all(Dataset)} == set(versions)
    assert {j.object for j in world.all(Job)} == set(versions)
    world.advance(minutes=2)
    world.deliver()
    assert len(world.runner.started) == 2


@attack(
    13,
    "a job writes where its own watch looks, and so triggers itself for ever; or over its dataset",
    stopped_by="a watch whose output lies in its input is refused; tokens create under the "
    "output prefix alone, and never replace or delete",
)
def test_output_that_triggers_itself(world, trainer):
    template = TrainingTemplate(
        base_model=TINY, settings=TrainingSettings(), output_prefix="data/models/"
    )
    with pytest.raises(InvalidRequest, match="overlap"):
        Watch(
            name=WatchName.of(world.acme.name, "loop"),
            bucket="acme-data",
            prefix="data/",
            template=template,
            created_by="owner",
            created_at=world.clock.now(),
        )
    (token,), version = trainer.tokens, world.version
    prefix = world.assignment.training.writes.prefix

    def write(name: str) -> int:
        return world.cloud.status_of(token, "storage.objects.create", "acme-data", name)

    assert write("data/again.jsonl") == 403
    assert write(version.object) == 403

    assert write(f"{prefix}model") == 200
    assert write(f"{prefix}model") == 403
    finalized = world.cloud.bucket("acme-data").blob(f"{prefix}model")
    finalized.reload()
    function = RegisterDataset(world)
    written = ObjectVersion(
        bucket="acme-data", object=finalized.name, generation=Generation(finalized.generation)
    )
    assert function.post(written, function.token(SENDER)) == 204
    assert len(world.all(Dataset)) == 1
