"""One promise, two clouds: facts are published over Google's client, and in memory."""

from datetime import UTC, datetime
from itertools import count

import grpc
import pytest
from contracts.test_cloud_ports import AsToken
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from sublet.codec import decode_fact
from sublet.events import DatasetRegistered, Fact, TrainingRequested
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.publisher import PubSubPublisher, topic_of
from sublet.memory.messages import MemoryPublisher
from sublet.names import AccountName, DatasetName, Generation, JobName, ObjectVersion
from sublet.ports import OutboxEntry

ACME = AccountName.of("acme")
NOW = datetime(2026, 11, 23, tzinfo=UTC)
NUMBERS = count(1)


class InMemory:
    def __init__(self) -> None:
        self.publisher = MemoryPublisher()

    def arrived(self, kind) -> dict[str, Fact]:
        return {e.id: e.fact for e in self.publisher.published if isinstance(e.fact, kind)}


class OverGoogleClients:
    def __init__(self, cloud) -> None:
        self._channel = grpc.insecure_channel(cloud.addresses.pubsub)
        self._project = cloud.name("facts")
        endpoints = Endpoints(pubsub_emulator=cloud.addresses.pubsub)
        email = cloud.account()
        for kind in (DatasetRegistered, TrainingRequested):
            cloud.allow(self._make(topic_of(kind)), "roles/pubsub.publisher", email)
        identity = AsToken(endpoints, cloud.token(email))
        self.publisher = PubSubPublisher(self._project, identity, endpoints)
        self._subscriber = SubscriberClient(
            transport=SubscriberGrpcTransport(channel=self._channel)
        )

    def _make(self, name: str) -> str:
        topic = f"projects/{self._project}/topics/{name}"
        PublisherClient(transport=PublisherGrpcTransport(channel=self._channel)).create_topic(
            name=topic
        )
        SubscriberClient(
            transport=SubscriberGrpcTransport(channel=self._channel)
        ).create_subscription(name=self._subscription(name), topic=topic)
        return topic

    def _subscription(self, topic_name: str) -> str:
        return f"projects/{self._project}/subscriptions/{topic_name}"

    def arrived(self, kind) -> dict[str, Fact]:
        pulled = self._subscriber.pull(
            subscription=self._subscription(topic_of(kind)), max_messages=100
        )
        messages = [received.message for received in pulled.received_messages]
        return {
            message.attributes["ce-id"]: decode_fact(message.attributes["ce-type"], message.data)
            for message in messages
        }


@pytest.fixture(params=["memory", "google client"])
def ports(request):
    if request.param == "memory":
        return InMemory()
    return OverGoogleClients(request.getfixturevalue("cloud"))


def entry(fact: Fact) -> OutboxEntry:
    return OutboxEntry(id=f"fact-{next(NUMBERS)}", fact=fact, committed_at=NOW)


def registered(name: str) -> OutboxEntry:
    version = ObjectVersion(bucket="acme-data", object=name, generation=Generation(7))
    dataset = DatasetName.of(ACME, name)
    return entry(DatasetRegistered(dataset=dataset, object=version, watch=None, registered_at=NOW))


def requested(name: str) -> OutboxEntry:
    return entry(TrainingRequested(job=JobName.of(ACME, name), requested_at=NOW))


def test_all_that_is_published_at_once_arrives_each_under_its_own_topic(ports):
    datasets, job = [registered("a"), registered("b"), registered("c")], requested("j")
    ports.publisher.publish([datasets[0], job, *datasets[1:]])
    assert ports.arrived(DatasetRegistered) == {e.id: e.fact for e in datasets}
    assert ports.arrived(TrainingRequested) == {job.id: job.fact}
