"""
One promise, two clouds: what the sweep needs to see of executions and of dead letters, over
Google's clients and in memory.
"""

import json
from datetime import timedelta

import pytest
from google.pubsub_v1 import PublisherClient, PubsubMessage, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from local_cloud.run.running import make, wait_until

from sublet.gcp.dead_letters import PubSubDeadLetters
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.runner import CloudRunRunner
from sublet.memory.clock import MemoryClock
from sublet.memory.messages import MemoryDeadLetters, MemoryRunner
from sublet.names import AccountName, JobName, LeaseName
from sublet.ports import DeadLetter, ExecutionState

JOB = JobName.of(AccountName.of("acme"), "j")
LEASE = LeaseName.of(AccountName.of("acme"), "ls-1")
WAITS = "import time; time.sleep(60)"


class InMemory:
    def __init__(self) -> None:
        self.clock = MemoryClock()
        self.runner = MemoryRunner(self.clock)
        self.letters = MemoryDeadLetters()

    def start_by_hand(self) -> str:
        return self.runner.start(JOB, None)

    def forsake(self, body: bytes) -> None:
        letter = DeadLetter(
            id="1", subscription="sublet-training-requested", num_deliveries=50, body=body
        )
        self.letters.waiting["1"] = letter


class OverGoogleClients:
    def __init__(self, cloud) -> None:
        from contracts.test_cloud_ports import AsToken

        self.clock = cloud.clock
        self._cloud = cloud
        endpoints = Endpoints(run=cloud.addresses.run, pubsub_emulator=cloud.addresses.pubsub)
        email = cloud.account()
        identity = AsToken(endpoints, cloud.token(email))
        self._job = make(cloud, WAITS)
        cloud.allow(self._job, "roles/run.jobsExecutorWithOverrides", email)
        role = "projects/platform-project/roles/canceller"
        verbs = frozenset(f"run.executions.{verb}" for verb in ("cancel", "get", "list"))
        cloud.do(lambda inside: inside.iam.create_role(role, verbs))
        cloud.allow(self._job, role, email)
        self.runner = CloudRunRunner(self._job, identity, endpoints)
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

    def start_by_hand(self) -> str:
        from google.cloud import run_v2
        from local_cloud.run.running import client

        operation = client(self._cloud, run_v2.JobsClient).run_job(name=self._job)
        return operation.metadata.name.rpartition("/")[2]

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


def test_what_runs_is_listed_with_its_lease_until_it_is_cancelled(ports):
    name = ports.runner.start(JOB, LEASE)
    (listed,) = ports.runner.running()
    assert (listed.name, listed.state, listed.lease) == (name, ExecutionState.RUNNING, LEASE)
    assert abs(listed.started_at - ports.clock.now()) < timedelta(seconds=20)
    ports.runner.cancel(name)
    wait_until(lambda: ports.runner.look_up(name).state is ExecutionState.CANCELLED)
    assert ports.runner.running() == []


def test_what_somebody_else_started_is_listed_without_a_lease(ports):
    name = ports.start_by_hand()
    assert [(e.name, e.lease) for e in ports.runner.running()] == [(name, None)]
    ports.runner.cancel(name)


def test_cancelling_what_has_ended_or_never_was_is_no_error(ports):
    name = ports.runner.start(JOB, LEASE)
    ports.runner.cancel(name)
    ports.runner.cancel(name)
    ports.runner.cancel("sublet-trainer-none")
    assert ports.runner.look_up("sublet-trainer-none").state is ExecutionState.UNKNOWN


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
