"""
One promise, two clouds: dead letters over Google's clients and in memory.
"""

import json

import pytest
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.gcp.dead_letters import PubSubDeadLetters
from sublet.gcp.endpoints import Endpoints
from sublet.memory.messages import MemoryDeadLetters
from sublet.ports import DeadLetter


class InMemory:
    def __init__(self) -> None:
        self.letters = MemoryDeadLetters()

    def forsake(self, body: bytes) -> None:
        letter = DeadLetter(
            id="1", subscription="sublet-training-requested", num_deliveries=50, body=body
        )
        self.letters.waiting["1"] = letter


class OverGoogleClients:
    def __init__(self, cloud) -> None:
        from contracts.test_cloud_ports import AsToken

        self._cloud = cloud
        endpoints = Endpoints(pubsub_emulator=cloud.addresses.pubsub)
        email = cloud.account()
        identity = AsToken(endpoints, cloud.token(email))
        self._subscription = self._make_subscription(cloud.name("letters"))
        cloud.allow(self._subscription, "roles/pubsub.subscriber", email)
        self.letters = PubSubDeadLetters(self._subscription, identity, endpoints)

    def _channel(self):
        import grpc

        return grpc.insecure_channel(self._cloud.addresses.pubsub)

    def _make_subscription(self, name: str) -> str:
        self._topic = f"projects/platform-project/topics/{name}"
        subscription = f"projects/platform-project/subscriptions/{name}"
        with PublisherClient(transport=PublisherGrpcTransport(channel=self._channel())) as client:
            client.create_topic(name=self._topic)
        with SubscriberClient(transport=SubscriberGrpcTransport(channel=self._channel())) as client:
            client.create_subscription(name=subscription, topic=self._topic)
        return subscription

    def forsake(self, body: bytes) -> None:
        """As Pub/Sub marks what it moves to a dead-letter topic."""
        attributes = {
            "CloudPubSubDeadLetterSourceSubscription": "sublet-training-requested",
            "CloudPubSubDeadLetterSourceDeliveryCount": "50",
        }
        with PublisherClient(transport=PublisherGrpcTransport(channel=self._channel())) as client:
            message = PubsubMessage(data=body, attributes=attributes)
            client.publish(topic=self._topic, messages=[message])


@pytest.fixture(params=["memory", "google clients"])
def ports(request):
    if request.param == "memory":
        return InMemory()
    return OverGoogleClients(request.getfixturevalue("cloud"))


def test_a_dead_letter_is_read_once_it_is_there_and_gone_once_acknowledged(ports):
    assert ports.letters.pull(limit=10) == []
    body = json.dumps({"job": "j"}).encode()
    ports.forsake(body)
    (letter,) = ports.letters.pull(limit=10)
    assert (letter.subscription, letter.num_deliveries, letter.body) == (
        "sublet-training-requested",
        50,
        body,
    )
    ports.letters.acknowledge(letter)
    assert ports.letters.pull(limit=10) == []
