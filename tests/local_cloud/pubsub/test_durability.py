import itertools
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient as GapicPublisher
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

SERVE = Path(__file__).with_name("serve.py")


def data(received):
    return [got.message.data for got in received]


class ServerProcess:
    """A server that can be killed; started again, it finds the same directory."""

    def __init__(self, directory):
        command = [sys.executable, str(SERVE), str(directory)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.address = self._process.stdout.readline().strip()

    def publisher(self):
        channel = grpc.insecure_channel(self.address)
        return GapicPublisher(transport=PublisherGrpcTransport(channel=channel))

    def subscriber(self):
        channel = grpc.insecure_channel(self.address)
        return pubsub_v1.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))

    def kill(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def start_server(tmp_path):
    servers = []

    def started():
        servers.append(ServerProcess(tmp_path))
        return servers[-1]

    yield started
    for server in servers:
        server.kill()


def drain(subscriber, subscription):
    """Pull until there is nothing, without acknowledging."""
    received = []
    while True:
        response = subscriber.pull(
            request={
                "subscription": subscription,
                "max_messages": 1000,
                "return_immediately": True,
            },
            timeout=10,
        )
        if not response.received_messages:
            return received
        received.extend(response.received_messages)


def test_a_kill_loses_nothing_that_was_answered_and_revives_nothing_acknowledged(
    start_server, names
):
    server = start_server()
    publisher, subscriber = server.publisher(), server.subscriber()
    publisher.create_topic(name=names.topic())
    subscriber.create_subscription(name=names.subscription(), topic=names.topic())
    for hundred in range(5):
        messages = [{"data": b"%d" % (100 * hundred + number)} for number in range(100)]
        publisher.publish(topic=names.topic(), messages=messages)
    received = drain(subscriber, names.subscription())
    ack_ids = [got.ack_id for got in received[:200]]
    subscriber.acknowledge(subscription=names.subscription(), ack_ids=ack_ids)
    server.kill()

    again = drain(start_server().subscriber(), names.subscription())
    assert data(again) == data(received[200:])


def test_a_kill_amid_publishing_loses_nothing_that_was_answered(start_server, names):
    server = start_server()
    server.publisher().create_topic(name=names.topic())
    server.subscriber().create_subscription(name=names.subscription(), topic=names.topic())
    answered = []
    enough = threading.Event()

    def publish(publisher):
        for number in itertools.count():
            try:
                response = publisher.publish(
                    topic=names.topic(),
                    messages=[{"data": b"%d" % number}] * 10,
                    retry=None,
                    timeout=5,
                )
            except (exceptions.GoogleAPICallError, exceptions.RetryError):
                return
            answered.extend(response.message_ids)
            if len(answered) > 500:
                enough.set()

    publishers = [threading.Thread(target=publish, args=(server.publisher(),)) for _ in range(3)]
    for thread in publishers:
        thread.start()
    assert enough.wait(15)
    server.kill()
    for thread in publishers:
        thread.join(15)

    there = {
        got.message.message_id for got in drain(start_server().subscriber(), names.subscription())
    }
    assert set(answered) <= there
    assert len(there - set(answered)) <= 30, "at most the requests under way, whole"
    assert len(there) % 10 == 0


def test_after_a_restart_what_was_leased_is_there_at_once_and_what_was_acknowledged_is_not(
    cloud, subscribe, publish, pull, ack
):
    subscription = subscribe(ack_deadline_seconds=600)
    publish(b"acknowledged", b"leased", b"waiting")
    acknowledged, _ = pull(subscription, 2)
    ack(subscription, acknowledged)
    cloud.restart()
    assert data(pull(subscription)) == [b"leased", b"waiting"]


def test_an_ack_of_a_lease_from_before_a_restart_does_nothing(cloud, subscribe, publish, pull, ack):
    """Both are the first lease of their process, of the same message."""
    subscription = subscribe()
    publish(b"drop")
    (before,) = pull(subscription)
    cloud.restart()
    (after,) = pull(subscription)
    ack(subscription, before)
    assert cloud.held() == (1, 1)
    ack(subscription, after)
    assert cloud.held() == (0, 0)


def test_topics_subscriptions_and_snapshots_outlive_a_restart(
    cloud, names, subscribe, publish, pull, ack
):
    subscription = subscribe(filter="attributes:kind", labels={"a": "b"}, retry_policy={})
    before = cloud.subscriber().get_subscription(subscription=subscription)
    publish({"data": b"held", "attributes": {"kind": "x"}})
    cloud.subscriber().create_snapshot(name=names.snapshot(), subscription=subscription)
    ack(subscription, *pull(subscription))
    cloud.restart()
    subscriber = cloud.subscriber()
    assert subscriber.get_subscription(subscription=subscription) == before
    subscriber.seek(request={"subscription": subscription, "snapshot": names.snapshot()})
    assert data(pull(subscription)) == [b"held"]


def test_failures_are_counted_on_and_waited_out_after_a_restart(
    cloud, names, subscribe, publish, pull, nack
):
    subscription = subscribe(
        dead_letter_policy={"dead_letter_topic": names.topic("dead")},
        retry_policy={"minimum_backoff": {"seconds": 60}},
    )
    publish(b"poison")
    for attempt in (1, 2):
        (got,) = pull(subscription)
        assert got.delivery_attempt == attempt
        nack(subscription, got)
        if attempt == 1:
            cloud.advance(seconds=61)
    cloud.restart()
    assert pull(subscription) == []
    cloud.advance(seconds=121)
    (got,) = pull(subscription)
    assert got.delivery_attempt == 3


def test_message_ids_go_on_after_a_restart(cloud, publish):
    before = publish(b"for nobody")
    cloud.restart()
    after = publish(b"for nobody")
    assert int(after[0]) > int(before[0])
