"""Faults are committed as ordered: by name, once, so many times or at a rate, and only there."""

import json
from datetime import timedelta

import grpc
import pytest
import requests
from google.api_core.exceptions import (
    Aborted,
    AlreadyExists,
    GoogleAPICallError,
    PreconditionFailed,
    ServiceUnavailable,
    Unauthenticated,
)
from google.cloud.storage.retry import DEFAULT_RETRY
from google.pubsub_v1 import PublisherClient, StreamingPullRequest, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from running_cloud import CUSTOMER

from sublet.errors import InvalidRequest
from sublet.local.faults import Fault, Faults, Order, parse_fault
from sublet.local.pubsub.messages import Outgoing
from sublet.local.pubsub.names import parse_subscription, parse_topic
from sublet.local.pubsub.queues import Budget
from sublet.local.pubsub.resources import Subscription, Topic

AT_ONCE = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.01)


@pytest.fixture
def order(cloud):
    """Called as order("slow", on="GET"); whatever was ordered is taken back after the test."""

    def add(name, **terms):
        made = Order(fault=Fault(name), **terms)
        cloud.do(lambda running: running.faults.add(made))
        return made

    yield add
    cloud.do(lambda running: running.faults.clear())


def strikes_of(order, occasions, subject="anything"):
    faults = Faults()
    faults.add(order)
    return sum(faults.strikes(order.fault, subject) for _ in range(occasions))


def test_an_order_is_carried_out_once_so_many_times_or_at_a_rate():
    assert strikes_of(Order(fault=Fault.SLOW), 100) == 1
    assert strikes_of(Order(fault=Fault.SLOW, times=3), 100) == 3
    assert strikes_of(Order(fault=Fault.SLOW, times=None), 100) == 100
    assert 10 < strikes_of(Order(fault=Fault.SLOW, rate=0.3, times=None), 100) < 50


def test_an_order_is_carried_out_only_where_it_was_meant():
    assert strikes_of(Order(fault=Fault.SLOW, on="storage POST"), 5, "storage POST /upload") == 1
    assert strikes_of(Order(fault=Fault.SLOW, on="storage POST"), 5, "storage GET /upload") == 0


def test_a_reordering_wait_is_shorter_than_the_latest_and_differs_each_time():
    faults = Faults()
    faults.add(Order(fault=Fault.REORDER, times=None, delay=timedelta(seconds=10)))
    waits = {faults.delay(Fault.REORDER, "m") for _ in range(10)}
    assert len(waits) == 10
    assert all(timedelta(0) < wait < timedelta(seconds=10) for wait in waits)


@pytest.mark.parametrize("terms", [{"rate": 0}, {"rate": 1.5}, {"times": 0}])
def test_an_order_that_makes_no_sense_is_refused(terms):
    with pytest.raises(InvalidRequest, match="expected"):
        Order(fault=Fault.SLOW, **terms)


def test_an_unknown_fault_is_refused_with_those_that_there_are():
    with pytest.raises(InvalidRequest, match="expected one of deliver-twice, deliver-late"):
        parse_fault("gremlins")


def test_a_503_has_no_effect_and_a_retry_gets_through(cloud, order):
    bucket = cloud.bucket()
    struck = order("return-503", on=f"/b/{bucket.name}/o", times=2)
    blob = bucket.blob("a")
    with pytest.raises(ServiceUnavailable, match="return-503"):
        blob.upload_from_string(b"x", if_generation_match=0, retry=None)
    assert struck.num_struck == 1
    blob.upload_from_string(b"x", if_generation_match=0, retry=AT_ONCE)
    assert struck.num_struck == 2


def test_a_reset_connection_had_its_effect(cloud, order):
    """The hard case of every retry: it happened, and nobody was told."""
    bucket = cloud.bucket()
    order("reset-connection", on=f"POST /upload/storage/v1/b/{bucket.name}")
    with pytest.raises(requests.ConnectionError):
        bucket.blob("a").upload_from_string(b"x", if_generation_match=0, retry=None)
    assert bucket.get_blob("a").size == 1
    with pytest.raises(PreconditionFailed):
        bucket.blob("a").upload_from_string(b"x", if_generation_match=0)


def test_a_download_that_is_cut_is_completed_by_the_clients_retry(cloud, order):
    bucket = cloud.bucket()
    bucket.blob("a").upload_from_string(b"x" * 5_000_000)
    struck = order("reset-connection", on="GET /download/")
    assert bucket.blob("a").download_as_bytes(retry=AT_ONCE) == b"x" * 5_000_000
    assert struck.num_struck == 1


def test_an_etag_conflict_strikes_conditional_writes_alone(cloud, order):
    bucket = cloud.bucket()
    order("etag-conflict", times=2)
    bucket.blob("a").upload_from_string(b"x")
    with pytest.raises(PreconditionFailed, match="etag-conflict"):
        bucket.blob("b").upload_from_string(b"x", if_generation_match=0)
    policy = bucket.get_iam_policy(requested_policy_version=3)
    with pytest.raises(PreconditionFailed, match="etag-conflict"):
        bucket.set_iam_policy(policy, retry=None)
    bucket.set_iam_policy(policy)


def test_a_token_that_expires_as_it_arrives_is_refused_for_good(cloud, order):
    bucket, email = cloud.bucket(), cloud.account()
    cloud.grant(bucket, "roles/storage.objectViewer", email)
    url = f"{cloud.addresses.storage}/storage/v1/b/{bucket.name}/o"
    headers = {"Authorization": f"Bearer {cloud.token(email)}"}
    assert requests.get(url, headers=headers, timeout=5).status_code == 200
    order("token-expiry-now")
    assert [requests.get(url, headers=headers, timeout=5).status_code for _ in range(2)] == [
        401
    ] * 2


def test_a_slow_request_waits_and_then_succeeds(cloud, order):
    bucket = cloud.bucket()
    struck = order("slow", on=bucket.name, delay=timedelta(milliseconds=200))
    assert bucket.exists()
    assert struck.num_struck == 1


def test_a_full_disk_refuses_an_upload_and_keeps_no_part_of_it(cloud, order):
    bucket = cloud.bucket()
    struck = order("disk-full", on=bucket.name, times=2)
    blob = bucket.blob("a")
    with pytest.raises(GoogleAPICallError, match="no space left on the device"):
        blob.upload_from_string(b"x" * 1000, retry=None)
    blob.chunk_size = 2**18
    with pytest.raises(GoogleAPICallError, match="no space left on the device"):
        blob.upload_from_string(b"x" * 2**19, retry=None)
    assert struck.num_struck == 2
    assert list(bucket.list_blobs()) == []
    blob.upload_from_string(b"x" * 2**19, retry=None)
    assert bucket.get_blob("a").size == 2**19


# --- over gRPC ------------------------------------------------------------------------------------


@pytest.fixture
def publisher(cloud):
    channel = grpc.insecure_channel(cloud.addresses.pubsub)
    with PublisherClient(transport=PublisherGrpcTransport(channel=channel)) as client:
        yield client


def test_a_call_that_is_refused_has_no_effect_and_a_retry_gets_through(cloud, order, publisher):
    topic = f"projects/{CUSTOMER}/topics/{cloud.name('topic')}"
    struck = order("return-503", on="pubsub POST /google.pubsub.v1.Publisher/CreateTopic")
    with pytest.raises(ServiceUnavailable, match="return-503"):
        publisher.create_topic(name=topic, retry=None)
    assert publisher.create_topic(name=topic).name == topic
    assert struck.num_struck == 1


def test_a_call_whose_connection_is_reset_had_its_effect(cloud, order, publisher):
    topic = f"projects/{CUSTOMER}/topics/{cloud.name('topic')}"
    order("reset-connection", on="CreateTopic")
    with pytest.raises(ServiceUnavailable):
        publisher.create_topic(name=topic, retry=None)
    with pytest.raises(AlreadyExists):
        publisher.create_topic(name=topic)


def test_a_policy_write_over_grpc_meets_a_conflict(cloud, order, publisher, subscription):
    order("etag-conflict")
    policy = {"policy": {"bindings": []}, "resource": subscription.topic}
    with pytest.raises(Aborted, match="etag-conflict"):
        publisher.set_iam_policy(request=policy)
    publisher.set_iam_policy(request=policy)


def test_a_token_of_a_call_expires_as_it_arrives(cloud, order, publisher, subscription):
    email = cloud.account()
    cloud.allow(subscription.topic, "roles/pubsub.viewer", email)
    sends = {"metadata": [("authorization", f"Bearer {cloud.token(email)}")]}
    assert publisher.get_topic(topic=subscription.topic, **sends).name == subscription.topic
    order("token-expiry-now", on="GetTopic")
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            publisher.get_topic(topic=subscription.topic, **sends)


def test_a_stream_is_cut_and_can_be_opened_anew(cloud, order, subscription):
    struck = order("reset-connection", on="StreamingPull")
    publish(cloud, subscription, "a")
    opening = StreamingPullRequest(
        subscription=subscription.name, stream_ack_deadline_seconds=10, client_id="me"
    )
    channel = grpc.insecure_channel(cloud.addresses.pubsub)
    with SubscriberClient(transport=SubscriberGrpcTransport(channel=channel)) as client:
        with pytest.raises(ServiceUnavailable):
            next(iter(client.streaming_pull(iter([opening]))))
        stream = client.streaming_pull(iter([opening]))
        assert next(iter(stream)).received_messages[0].message.data == b"a"
        stream.cancel()
    assert struck.num_struck == 1


# --- deliveries -----------------------------------------------------------------------------------


def make_subscription(cloud):
    """A topic that nobody else uses, and its one subscription."""
    topic = parse_topic(f"projects/{CUSTOMER}/topics/{cloud.name('topic')}")
    name = f"projects/{CUSTOMER}/subscriptions/{cloud.name('subscription')}"
    made = Subscription(name=parse_subscription(name), topic=topic)
    cloud.do(lambda running: running.pubsub.create_topic(Topic(name=topic)))
    cloud.do(lambda running: running.pubsub.create_subscription(made))
    return made


@pytest.fixture
def subscription(cloud):
    return make_subscription(cloud)


def publish(cloud, subscription, *texts):
    outgoing = [Outgoing(data=text.encode()) for text in texts]
    cloud.do(lambda running: running.pubsub.publish(subscription.topic, outgoing))


def take(cloud, subscription, *, acknowledges=True):
    """What is there to be had now, acknowledged, without waiting for more."""

    def act(running):
        running.pubsub.tick()
        budget = Budget(messages=10, size_bytes=10**6)
        deliveries = running.pubsub.deliveries.lease(subscription.name, budget)
        if acknowledges and deliveries:
            running.pubsub.deliveries.acknowledge(subscription.name, [d.ack_id for d in deliveries])
        return [delivery.message.data.decode() for delivery in deliveries]

    return cloud.do(act)


def test_a_message_that_was_acknowledged_comes_once_more(cloud, order, subscription):
    order("deliver-twice", on=subscription.name)
    publish(cloud, subscription, "a")
    assert [take(cloud, subscription) for _ in range(3)] == [["a"], ["a"], []]


def test_a_late_message_comes_when_its_wait_is_over(own_cloud):
    cloud = own_cloud()
    made = make_subscription(cloud)
    cloud.do(lambda c: c.faults.add(Order(fault=Fault.DELIVER_LATE, delay=timedelta(hours=1))))
    publish(cloud, made, "late", "prompt")
    assert take(cloud, made) == ["prompt"]
    cloud.clock.advance(hours=1)
    assert take(cloud, made) == ["late"]


def test_reordered_messages_overtake_each_other_and_none_is_lost(own_cloud):
    cloud = own_cloud()
    made = make_subscription(cloud)
    order = Order(fault=Fault.REORDER, times=None, delay=timedelta(hours=1))
    cloud.do(lambda c: c.faults.add(order))
    sent = list("abcdefgh")
    publish(cloud, made, *sent)
    came = []
    for _ in range(60):
        cloud.clock.advance(minutes=1)
        came += take(cloud, made)
    assert sorted(came) == sent
    assert came != sent


def watch(cloud, bucket, topic):
    agent = f"serviceAccount:{cloud.do(lambda c: c.projects.storage_agent(CUSTOMER))}"
    cloud.do(lambda c: c.iam.policies.grant(topic, "roles/pubsub.publisher", agent))
    _, project, _, topic_id = topic.split("/")
    bucket.notification(topic_id, topic_project=project, payload_format="JSON_API_V1").create()


def test_a_dropped_notification_is_the_only_thing_that_is_lost(cloud, order, subscription):
    bucket = cloud.bucket()
    watch(cloud, bucket, subscription.topic)
    order("drop-notification", on=subscription.topic)
    bucket.blob("a").upload_from_string(b"x")
    bucket.blob("b").upload_from_string(b"x")
    assert {blob.name for blob in bucket.list_blobs()} == {"a", "b"}
    (told,) = take(cloud, subscription)
    assert json.loads(told)["name"] == "b"
