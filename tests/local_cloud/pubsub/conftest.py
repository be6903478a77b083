"""Nothing here waits for a lease by sleeping: tests move the clock, and wait for conditions."""

import threading
import time
from concurrent.futures import wait
from datetime import timedelta

import pytest
from google.cloud import pubsub_v1
from google.pubsub_v1 import PublisherClient as GapicPublisher
from local_cloud.pubsub.endpoint import Endpoint
from local_cloud.pubsub.local_pubsub import PATIENCE_S, LocalPubSub, LoopThread, MovedClock

from sublet.local.iam.oidc import IdTokens


def pytest_configure(config):
    # The one way to ask what there is now, without waiting for what may come.
    config.addinivalue_line("filterwarnings", "ignore:The return_immediately flag")


class Names:
    project = "projects/proj-local"

    def topic(self, name="drops"):
        return f"{self.project}/topics/{name}"

    def subscription(self, name="register"):
        return f"{self.project}/subscriptions/{name}"

    def snapshot(self, name="before"):
        return f"{self.project}/snapshots/{name}"


class Inbox:
    """What a streaming subscriber received, and what it then did with it."""

    def __init__(self, react):
        self.messages = []
        self._react = react
        self._changed = threading.Condition()

    def __call__(self, message):
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()
        self._react(message)

    def wait_for(self, count):
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.messages) >= count, PATIENCE_S), (
                f"{len(self.messages)} messages came; expected {count}"
            )
            return list(self.messages)


def eventually(condition, *, within_s=PATIENCE_S):
    """Return the first true answer; fail when there was none in time."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
    return answer


@pytest.fixture(scope="session")
def loop_thread():
    thread = LoopThread()
    yield thread
    thread.stop()


@pytest.fixture(scope="session")
def session_clock():
    return MovedClock()


@pytest.fixture(scope="session")
def id_tokens(tmp_path_factory, session_clock):
    """One signing key for all: to make one, or only to read it, takes longer than most tests."""
    return IdTokens(tmp_path_factory.mktemp("id-tokens"), session_clock)


@pytest.fixture
def make_cloud(loop_thread, tmp_path, id_tokens, session_clock):
    clouds = []
    session_clock.moved = timedelta(0)

    def make(**options):
        clouds.append(LocalPubSub(loop_thread, tmp_path, id_tokens, session_clock, **options))
        return clouds[-1]

    yield make
    for cloud in clouds:
        cloud.close()


@pytest.fixture
def cloud(make_cloud):
    return make_cloud()


@pytest.fixture
def publisher(cloud):
    return cloud.publisher()


@pytest.fixture
def subscriber(cloud):
    return cloud.subscriber()


@pytest.fixture
def names():
    return Names()


@pytest.fixture
def topic(cloud, names):
    cloud.call(cloud.pubsub.ensure_topic, names.topic())
    return names.topic()


@pytest.fixture
def subscribe(cloud, names, topic):
    """Make a subscription of `topic` by its fields, as Google's client would."""

    def made(name="register", **fields):
        client = cloud.subscriber()
        request = {"name": names.subscription(name), "topic": topic, **fields}
        return client.create_subscription(request=request).name

    return made


@pytest.fixture
def publish(cloud, topic):
    """Publish in one request, and return the ids."""

    def published(*messages, to=topic):
        wire = [m if isinstance(m, dict) else {"data": m} for m in messages]
        transport = cloud.publisher().transport
        return list(
            GapicPublisher(transport=transport).publish(topic=to, messages=wire).message_ids
        )

    return published


@pytest.fixture
def pull(cloud):
    """Pull what there is right now, up to `most`."""

    def pulled(subscription, most=100, *, wait_s=None):
        request = {"subscription": subscription, "max_messages": most}
        if wait_s is None:
            request["return_immediately"] = True
        response = cloud.subscriber().pull(request=request, timeout=wait_s or PATIENCE_S)
        return list(response.received_messages)

    return pulled


@pytest.fixture
def ack(cloud):
    def acked(subscription, *received):
        ack_ids = [got.ack_id for got in received]
        if ack_ids:
            cloud.subscriber().acknowledge(subscription=subscription, ack_ids=ack_ids)

    return acked


@pytest.fixture
def nack(cloud):
    def nacked(subscription, *received):
        ack_ids = [got.ack_id for got in received]
        if ack_ids:
            cloud.subscriber().modify_ack_deadline(
                subscription=subscription, ack_ids=ack_ids, ack_deadline_seconds=0
            )

    return nacked


@pytest.fixture
def streaming(cloud):
    """Start streaming subscribers; they end with the test."""
    futures = []

    def started(subscription, react=lambda message: message.ack(), **flow_control):
        inbox = Inbox(react)
        futures.append(
            cloud.subscriber().subscribe(
                subscription, inbox, flow_control=pubsub_v1.types.FlowControl(**flow_control)
            )
        )
        inbox.future = futures[-1]
        return inbox

    yield started
    for future in futures:
        future.cancel()
    wait(futures, timeout=PATIENCE_S)


@pytest.fixture
def endpoint():
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture(name="eventually")
def _eventually():
    return eventually


@pytest.fixture
def push_to(subscribe, endpoint):
    """Make a push subscription of the endpoint."""

    def made(name="pushed", *, push=None, **fields):
        config = {"push_endpoint": endpoint.url, **(push or {})}
        return subscribe(name, push_config=config, **fields)

    return made


@pytest.fixture
def why(cloud):
    """The reason of the latest failure."""
    return lambda name: cloud.call(cloud.server.push_loops.last_failures.get, name)


@pytest.fixture
def last_failure(why, eventually):
    """Wait for a failure, and return its reason."""
    return lambda name: eventually(lambda: why(name))
