"""A function behind its door, as functions-framework serves it, over the world in one process."""

import json
from base64 import b64encode
from functools import partial
from typing import Any

import pytest
from flask import Flask, request

from sublet.codec import encode
from sublet.errors import Unauthenticated
from sublet.events import TrainingFinished, TrainingRequested
from sublet.intake.door import Door
from sublet.intake.envelopes import fact_of, object_finalized
from sublet.names import Email

SENDER = Email("sender@platform.iam.gserviceaccount.com")
URL = "https://function.example"


class KnownTokens:
    """
    Tokens by name: what a verified token says, without the cryptography that other tests cover.
    """

    def __init__(self) -> None:
        self.emails = {"good": SENDER, "stranger": Email("stranger@evil.iam.gserviceaccount.com")}

    def verify(self, token: str, *, audience: str) -> Email:
        if token not in self.emails or audience != URL:
            raise Unauthenticated("the ID token is refused")
        return self.emails[token]


class Functions:
    """Every function at a path of its own."""

    def __init__(self, world) -> None:
        self.world = world
        app = Flask("sublet")
        app.config["PROPAGATE_EXCEPTIONS"] = False
        units = {
            "register-dataset": (object_finalized, world.registration.handle),
            "start-training": (partial(fact_of, TrainingRequested), world.dispatch.handle),
            "revoke-access": (partial(fact_of, TrainingFinished), world.revocation.handle),
        }
        for name, (parse, handle) in units.items():
            app.add_url_rule(
                f"/{name}",
                name,
                self._view(self._door(name), parse, handle),
                methods=["GET", "POST"],
            )
        sweep = self._door("sweep-leases")
        app.add_url_rule(
            "/sweep-leases",
            "sweep-leases",
            lambda: sweep.ring(
                request, lambda: world.sweep.run(dry_run="dryRun" in request.args).to_wire()
            ),
            methods=["POST"],
        )
        self._client = app.test_client()

    def post(self, unit: str, body, *, token: str | None = "good", **headers: str) -> int:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
        answer = self._client.post(f"/{unit}", data=data, headers=headers)
        return answer.status_code

    def ring(self, path: str) -> dict[str, Any]:
        """As Cloud Scheduler does; the answer's body."""
        headers = {"Authorization": "Bearer good"}
        return self._client.post(f"/{path}", headers=headers).get_json()

    def get(self, unit: str) -> int:
        return self._client.get(f"/{unit}").status_code

    def _door(self, name: str) -> Door:
        return Door(
            unit=name,
            registry=self.world.registry,
            clock=self.world.clock,
            verifier=KnownTokens(),
            audience=URL,
            senders=frozenset({SENDER}),
        )

    @staticmethod
    def _view(door, parse, handle):
        return lambda: door.receive(request, parse, handle)


@pytest.fixture
def functions(world) -> Functions:
    return Functions(world)


@pytest.fixture
def notification():
    """A Pub/Sub push of Cloud Storage's notification, as the real service sends it."""

    def push(version, subscription="sublet-objects-acme", event_type="OBJECT_FINALIZE", **changes):
        attributes = {
            "bucketId": version.bucket,
            "objectId": version.object,
            "objectGeneration": str(version.generation),
            "eventType": event_type,
            "payloadFormat": "JSON_API_V1",
            **changes,
        }
        message = {"data": b64encode(b"{}").decode(), "attributes": attributes, "messageId": "1"}
        return {"subscription": f"projects/p/subscriptions/{subscription}", "message": message}

    return push


@pytest.fixture
def eventarc():
    """Headers and body of a CloudEvent of Cloud Storage, binary mode, as Eventarc sends it."""

    def event(version, **changes):
        headers = {
            "ce-id": "1",
            "ce-source": f"//storage.googleapis.com/projects/_/buckets/{version.bucket}",
            "ce-specversion": "1.0",
            "ce-subject": f"objects/{version.object}",
            "ce-type": "google.cloud.storage.object.v1.finalized",
            "ce-time": "2026-11-22T12:00:00Z",
            **{key: value for key, value in changes.items() if key.startswith("ce-")},
        }
        body = {
            "bucket": version.bucket,
            "name": version.object,
            "generation": str(version.generation),
            **{key: value for key, value in changes.items() if not key.startswith("ce-")},
        }
        return headers, body

    return event


@pytest.fixture
def fact_push():
    """A Pub/Sub push of one of our own facts, as the publisher sends it."""

    def push(fact):
        attributes = {"ce-type": fact.type, "ce-id": "1", "ce-specversion": "1.0"}
        message = {"data": b64encode(encode(fact)).decode(), "attributes": attributes}
        return {"subscription": "projects/p/subscriptions/s", "message": message}

    return push
