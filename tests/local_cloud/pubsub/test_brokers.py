"""
What the rest of the cloud may rely on, whoever's Pub/Sub it is: ours, Google's emulator, or one
that somebody else has started (here another of ours, reached as a stranger would reach it).
"""

import base64
import json
from datetime import timedelta

import google.auth.transport.requests
import pytest
import requests
from google.oauth2 import id_token
from local_cloud.pubsub.endpoint import Endpoint
from local_cloud.pubsub.local_pubsub import PATIENCE_S
from running_cloud import PLATFORM, RunningCloud

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.pubsub.external.emulators import find_google_emulator
from sublet.local.pubsub.names import parse_subscription, parse_topic
from sublet.local.pubsub.resources import OidcToken, Push, RetryPolicy, Subscription

AUDIENCE = "https://sublet.example"


@pytest.fixture(scope="module", params=["sublet", "google", "running"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A cloud that somebody else runs."""
    made = RunningCloud(tmp_path_factory.mktemp("other"))
    made.do(lambda cloud: cloud.iam.service_accounts.ensure("sublet-local", "trial"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def world(kind, tmp_path_factory, other):
    pubsub = kind
    if kind == "google":
        try:
            find_google_emulator()
        except FailedPrecondition as error:
            pytest.skip(str(error))
    if kind == "running":
        pubsub = other.addresses.pubsub
    made = RunningCloud(tmp_path_factory.mktemp(kind), pubsub=pubsub)
    yield made
    made.stop()


class Channel:
    """A topic and what it is pushed to, as the bootstrap makes them."""

    def __init__(self, world, endpoint):
        self._world = world
        name = world.name("channel")
        self.topic = parse_topic(f"projects/{PLATFORM}/topics/{name}")
        self.subscription = parse_subscription(f"projects/{PLATFORM}/subscriptions/{name}")
        self.sender = world.account()
        world.do(lambda cloud: cloud.broker.ensure_topic(self.topic))
        self.push_to(endpoint)

    def push_to(self, endpoint):
        wanted = Subscription(
            name=self.subscription,
            topic=self.topic,
            push=Push(endpoint=endpoint.url, oidc=OidcToken(email=self.sender, audience=AUDIENCE)),
            ack_deadline_s=60,
            retry_policy=RetryPolicy(minimum_backoff=timedelta(milliseconds=100)),
        )
        self._world.do(lambda cloud: cloud.broker.ensure_subscription(wanted))

    def publish(self, *data):
        def act(cloud):
            with cloud.database.transaction():
                for one in data:
                    cloud.broker.publish_one(self.topic, one, {"kind": "new"})

        self._world.do(act)


@pytest.fixture
def channel(world, endpoint):
    return Channel(world, endpoint)


def pushed(requests):
    return [base64.b64decode(json.loads(r.body)["message"]["data"]) for r in requests]


def test_what_is_published_is_pushed_with_an_id_token_that_verifies(world, channel, endpoint):
    channel.publish(b"drop")
    (request,) = endpoint.wait_for(1)
    body = json.loads(request.body)
    assert body["subscription"] == channel.subscription
    assert body["message"]["attributes"] == {"kind": "new"}
    assert base64.b64decode(body["message"]["data"]) == b"drop"
    assert (request.path, request.headers["content-type"]) == ("/push", "application/json")
    claims = id_token.verify_token(
        request.headers["authorization"].removeprefix("Bearer "),
        google.auth.transport.requests.Request(),
        audience=AUDIENCE,
        certs_url=f"{world.addresses.iam}/oauth2/v1/certs",
    )
    assert (claims["email"], claims["email_verified"]) == (channel.sender, True)


def test_an_upload_announces_itself(world, channel, endpoint):
    agent = world.do(lambda cloud: cloud.projects.storage_agent("customer-project"))
    world.allow(channel.topic, "roles/pubsub.publisher", agent)
    bucket = world.bucket()
    bucket.notification(
        topic_name=channel.topic.rpartition("/")[2],
        topic_project=PLATFORM,
        payload_format="JSON_API_V1",
        event_types=["OBJECT_FINALIZE"],
    ).create()
    blob = bucket.blob("data/train.jsonl")
    blob.upload_from_string(b"rows")
    (request,) = endpoint.wait_for(1)
    message = json.loads(request.body)["message"]
    assert message["attributes"]["eventType"] == "OBJECT_FINALIZE"
    assert message["attributes"]["objectGeneration"] == str(blob.generation)
    assert json.loads(base64.b64decode(message["data"]))["name"] == "data/train.jsonl"


def test_what_is_rolled_back_was_never_published(world, channel, endpoint):
    class Undone(Exception):
        pass

    def act(cloud):
        with cloud.database.transaction():
            cloud.broker.publish_one(channel.topic, b"undone", {})
            raise Undone

    with pytest.raises(Undone):
        world.do(act)
    channel.publish(b"done")
    assert pushed(endpoint.wait_for(1)) == [b"done"]


def test_what_no_pubsub_would_take_is_refused_at_once(world, channel, endpoint):
    """Else it would be tried for ever, and all that was published after it would wait."""
    with pytest.raises(InvalidRequest, match="goog"):
        world.do(lambda cloud: cloud.broker.publish_one(channel.topic, b"x", {"googly": "1"}))
    channel.publish(b"good")
    assert pushed(endpoint.wait_for(1)) == [b"good"]


def test_an_endpoint_that_refuses_is_asked_again(channel, endpoint):
    answers = iter([503])
    endpoint.answer = lambda _: next(answers, 204)
    channel.push_to(endpoint)
    channel.publish(b"drop")
    assert pushed(endpoint.wait_for(2)) == [b"drop", b"drop"]


def test_ensuring_again_changes_nothing_and_ensuring_otherwise_changes_that(channel, endpoint):
    channel.push_to(endpoint)
    channel.publish(b"here")
    assert pushed(endpoint.wait_for(1)) == [b"here"]
    other = Endpoint()
    channel.push_to(other)
    channel.publish(b"there")
    assert pushed(other.wait_for(1)) == [b"there"]
    assert len(endpoint.requests) == 1
    other.close()


def test_a_topic_exists_when_it_was_made_and_a_name_that_is_none_never(world, channel):
    asked = (channel.topic, f"{channel.topic}-not", "projects/p/nothing/t", "")
    assert world.do(lambda cloud: [cloud.broker.exists(topic) for topic in asked]) == [
        *(True, False, False, False)
    ]


def test_a_sender_that_is_disabled_sends_nothing_until_it_is_enabled(world, channel, endpoint):
    def disable(disabled):
        world.do(lambda c: c.iam.service_accounts.set_disabled(channel.sender, disabled=disabled))

    disable(disabled=True)
    channel.publish(b"drop")
    other = Channel(world, endpoint)
    other.publish(b"of another")
    assert pushed(endpoint.wait_for(1)) == [b"of another"]
    disable(disabled=False)
    assert pushed(endpoint.wait_for(2))[1] == b"drop"


# --- one that is not ours -------------------------------------------------------------------------

foreign = pytest.mark.parametrize("kind", ["google", "running"], indirect=True)


@foreign
def test_what_it_can_do_is_said_in_a_line_each(world, kind):
    told = world.do(lambda cloud: cloud.broker.remarks)
    assert told[0] == f"at {world.addresses.pubsub}, in place of sublet's own"
    assert len(told) == 5
    if kind == "running":
        assert told[1] == "filters of subscriptions are applied there"
        assert "carry an ID token" in told[2]


@foreign
def test_the_relay_signs_for_nobody_who_does_not_know_its_secret(world, channel, endpoint):
    """Anything on this machine can reach its port, a web page's script too."""
    port = world.do(lambda cloud: cloud._ports._ports["push-relay"])
    forged = {"message": {"data": ""}, "subscription": channel.subscription}
    for secret in ("", "guess", "%00", "x" * 22):
        url = f"http://127.0.0.1:{port}/{secret}/{channel.subscription}"
        assert requests.post(url, json=forged, timeout=PATIENCE_S).status_code == 404
    assert endpoint.requests == []


@pytest.mark.parametrize("kind", ["running"], indirect=True)
def test_what_is_published_while_it_is_away_is_published_when_it_is_back(other, channel, endpoint):
    other.stop()
    channel.publish(b"first")
    channel.publish(b"second", b"third")
    other.start()
    assert sorted(pushed(endpoint.wait_for(3))) == [b"first", b"second", b"third"]
