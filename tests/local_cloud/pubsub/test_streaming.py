import queue
import threading

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1 import types

STREAM = "/google.pubsub.v1.Subscriber/StreamingPull"


class RawStream:
    """One StreamingPull call without the client's machinery: what is sent is what was written."""

    def __init__(self, channel, **first):
        self._requests = queue.Queue()
        self.send(**first)
        call = channel.stream_stream(
            STREAM,
            request_serializer=types.StreamingPullRequest.serialize,
            response_deserializer=types.StreamingPullResponse.deserialize,
        )
        self._responses = call(iter(self._requests.get, None), timeout=9)

    def send(self, **fields):
        self._requests.put(types.StreamingPullRequest(**fields))

    def receive(self):
        return next(self._responses)

    def receive_messages(self, count):
        received = []
        while len(received) < count:
            received.extend(self.receive().received_messages)
        return received

    def error(self):
        with pytest.raises(grpc.RpcError) as raised:
            self.receive()
        return raised.value.code(), raised.value.details()

    def half_close(self):
        self._requests.put(None)
        return list(self._responses)

    def cancel(self):
        self._responses.cancel()
        self._requests.put(None)


@pytest.fixture
def open_stream(cloud):
    streams = []

    def opened(subscription, **first):
        first = {"subscription": subscription, "stream_ack_deadline_seconds": 10, **first}
        streams.append(RawStream(cloud.channel(), **first))
        return streams[-1]

    yield opened
    for stream in streams:
        stream.cancel()


@pytest.fixture
def num_statements(cloud):
    """Count the SQL statements that the server runs: what spins runs thousands."""
    seen = []
    cloud.call(cloud.database._connection.set_trace_callback, seen.append)
    return lambda: len(seen)


def test_messages_stream_to_googles_client_and_are_acknowledged(
    cloud, subscribe, publish, streaming, eventually
):
    subscription = subscribe()
    inbox = streaming(subscription)
    ids = {message_id for _ in range(10) for message_id in publish(*[b"x"] * 100)}
    assert {message.message_id for message in inbox.wait_for(1000)} == ids
    eventually(lambda: cloud.held() == (0, 0))
    assert len(inbox.messages) == 1000


def test_what_the_callback_fails_on_comes_again(subscribe, publish, streaming):
    failed = threading.Event()

    def react(message):
        if not failed.is_set():
            failed.set()
            raise ValueError("not this time")
        message.ack()

    inbox = streaming(subscribe(), react)
    publish(b"drop")
    assert [message.data for message in inbox.wait_for(2)] == [b"drop", b"drop"]


def test_a_full_stream_gets_no_more_until_it_settles_something(
    subscribe, publish, open_stream, subscriber
):
    subscription = subscribe()
    stream = open_stream(subscription, max_outstanding_messages=3)
    ids = publish(*[b"x"] * 5)
    first = stream.receive_messages(3)
    assert [got.message.message_id for got in first] == ids[:3]

    # By the stream itself, and by a call beside it as Google's client does it.
    stream.send(ack_ids=[first[0].ack_id])
    assert [got.message.message_id for got in stream.receive_messages(1)] == ids[3:4]
    subscriber.acknowledge(subscription=subscription, ack_ids=[first[1].ack_id])
    assert [got.message.message_id for got in stream.receive_messages(1)] == ids[4:]


def test_bytes_fill_a_stream_too_but_never_block_it(subscribe, publish, open_stream):
    stream = open_stream(subscribe(), max_outstanding_bytes=2500, protocol_version=1)
    publish(*[b"x" * 1000] * 3, b"y" * 9000)
    first, second = stream.receive_messages(2)
    stream.send()
    assert not stream.receive().received_messages, "the ping is answered before any more comes"
    stream.send(ack_ids=[first.ack_id])
    (third,) = stream.receive_messages(1)
    stream.send(ack_ids=[second.ack_id, third.ack_id])
    (larger,) = stream.receive_messages(1)
    assert larger.message.data == b"y" * 9000, "larger than the limit: it comes alone"


def test_a_full_stream_sleeps_and_others_get_theirs(
    cloud, subscribe, publish, open_stream, num_statements, topic
):
    """
    A stream without room once asked again and again: the event loop starved, and everybody got two
    messages a second.
    """
    subscription = subscribe()
    full = open_stream(subscription, max_outstanding_messages=1)
    ids = publish(b"one", b"two")
    assert [got.message.message_id for got in full.receive_messages(1)] == ids[:1]

    publisher = cloud.publisher()
    before = num_statements()
    for _ in range(50):
        publisher.get_topic(topic=topic)
    assert num_statements() - before < 50 * 3

    other = open_stream(subscription)
    assert [got.message.message_id for got in other.receive_messages(1)] == ids[1:]
    more = publish(b"three")
    assert [got.message.message_id for got in other.receive_messages(1)] == more


def test_an_idle_stream_sleeps(subscribe, open_stream, publish, num_statements, publisher, topic):
    stream = open_stream(subscribe())
    publish(b"so that it is known to be open")
    stream.receive_messages(1)
    before = num_statements()
    for _ in range(50):
        publisher.get_topic(topic=topic)
    assert num_statements() - before < 50 * 3


def test_a_stream_moves_deadlines_and_gives_messages_back(
    cloud, subscribe, publish, open_stream, eventually
):
    stream = open_stream(subscribe(ack_deadline_seconds=600))
    kept, given_back = publish(b"kept", b"given back")
    received = {got.message.message_id: got.ack_id for got in stream.receive_messages(2)}
    stream.send(
        modify_deadline_ack_ids=[received[kept], received[given_back]],
        modify_deadline_seconds=[100, 0],
    )
    (again,) = stream.receive_messages(1)
    assert again.message.message_id == given_back

    # 10 s are the stream's own deadline, which stands above the subscription's.
    cloud.advance(seconds=11)
    (again,) = stream.receive_messages(1)
    assert again.message.message_id == given_back
    stream.send(ack_ids=[again.ack_id])
    eventually(lambda: cloud.held() == (1, 1))
    cloud.advance(seconds=100)
    (again,) = stream.receive_messages(1)
    assert again.message.message_id == kept


def test_a_stream_changes_its_deadline_on_the_way(cloud, subscribe, publish, open_stream, pull):
    subscription = subscribe()
    stream = open_stream(subscription, protocol_version=1)
    stream.send(stream_ack_deadline_seconds=300)
    stream.receive()
    publish(b"drop")
    stream.receive_messages(1)
    cloud.advance(seconds=299)
    assert pull(subscription) == []
    cloud.advance(seconds=2)
    assert len(stream.receive_messages(1)) == 1


def test_a_ping_is_answered_to_those_who_know_of_pings(subscribe, publish, open_stream):
    knowing = open_stream(subscribe("a" * 3, enable_message_ordering=True), protocol_version=1)
    knowing.send()
    answer = knowing.receive()
    assert not answer.received_messages
    assert answer.subscription_properties.message_ordering_enabled

    unknowing = open_stream(subscribe("b" * 3))
    unknowing.send()
    publish(b"drop")
    assert len(unknowing.receive().received_messages) == 1


@pytest.mark.parametrize(
    ("later", "complaint"),
    [
        ({"subscription": "projects/proj-local/subscriptions/other"}, "once"),
        ({"protocol_version": 1}, "once"),
        ({"stream_ack_deadline_seconds": 9}, "expected 10 to 600"),
        ({"modify_deadline_ack_ids": ["1-1-1"]}, "in pairs"),
        ({"ack_ids": ["garbage"]}, "invalid ack ID"),
    ],
)
def test_a_request_that_makes_no_sense_ends_the_stream(subscribe, open_stream, later, complaint):
    stream = open_stream(subscribe())
    stream.send(**later)
    code, details = stream.error()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert complaint in details


def test_a_stream_must_say_its_deadline(subscribe, open_stream):
    code, _ = open_stream(subscribe(), stream_ack_deadline_seconds=0).error()
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_stream_that_its_client_closes_ends_well(subscribe, open_stream):
    assert open_stream(subscribe()).half_close() == []


def test_a_stream_ends_when_its_subscription_is_deleted(subscribe, subscriber, streaming, publish):
    subscription = subscribe()
    inbox = streaming(subscription)
    publish(b"so that the stream is known to be open")
    inbox.wait_for(1)
    subscriber.delete_subscription(subscription=subscription)
    with pytest.raises(exceptions.NotFound, match=r"Resource not found \(resource=register\)"):
        inbox.future.result(timeout=5)


def test_a_stream_ends_when_its_subscription_is_detached(
    subscribe, publisher, open_stream, publish
):
    subscription = subscribe()
    stream = open_stream(subscription)
    publish(b"so that the stream is known to be open")
    stream.receive_messages(1)
    publisher.detach_subscription(request={"subscription": subscription})
    code, details = stream.error()
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "detached" in details


def test_a_stream_that_a_restart_breaks_off_ends_in_a_way_that_clients_connect_again_for(
    cloud, subscribe, publish, open_stream
):
    """UNAVAILABLE is retried by Google's client; CANCELLED would end its subscriber for good."""
    subscription = subscribe()
    stream = open_stream(subscription)
    publish(b"drop")
    stream.receive_messages(1)
    cloud.restart()
    assert stream.error()[0] is grpc.StatusCode.UNAVAILABLE
    again = open_stream(subscription)
    assert [got.message.data for got in again.receive_messages(1)] == [b"drop"]


def test_what_a_broken_stream_had_comes_again_after_its_deadline(
    cloud, subscribe, publish, open_stream, pull, eventually
):
    subscription = subscribe()
    stream = open_stream(subscription)
    publish(b"drop")
    stream.receive_messages(1)
    stream.cancel()
    eventually(lambda: not cloud.pubsub.deliveries.arrivals[subscription])
    assert pull(subscription) == []
    cloud.advance(seconds=11)
    assert [got.message.data for got in pull(subscription)] == [b"drop"]
