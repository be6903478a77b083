import datetime as dt

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1
from google.pubsub_v1.services.schema_service import SchemaServiceClient
from google.pubsub_v1.services.schema_service.transports import SchemaServiceGrpcTransport

from sublet.local.pubsub.resources import RetryPolicy

MINUTE = dt.timedelta(minutes=1)


def test_googles_client_finds_it_by_the_environment(cloud, names, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cloud.address)
    publisher, subscriber = pubsub_v1.PublisherClient(), pubsub_v1.SubscriberClient()

    publisher.create_topic(name=names.topic())
    subscriber.create_subscription(name=names.subscription(), topic=names.topic())
    message_id = publisher.publish(names.topic(), b"drop", kind="new").result(timeout=5)
    received = subscriber.pull(subscription=names.subscription(), max_messages=1, timeout=5)

    (got,) = received.received_messages
    assert (got.message.message_id, got.message.data) == (message_id, b"drop")
    assert dict(got.message.attributes) == {"kind": "new"}


def test_a_topic_is_made_read_changed_and_deleted(publisher, names):
    made = publisher.create_topic(
        request={"name": names.topic(), "labels": {"env": "test"}},
    )
    assert (made.name, dict(made.labels)) == (names.topic(), {"env": "test"})

    changed = publisher.update_topic(
        request={
            "topic": {
                "name": names.topic(),
                "labels": {"ignored": "yes"},
                "message_retention_duration": 60 * MINUTE,
            },
            "update_mask": {"paths": ["message_retention_duration"]},
        }
    )
    assert changed == publisher.get_topic(topic=names.topic())
    assert changed.message_retention_duration == 60 * MINUTE
    assert dict(changed.labels) == {"env": "test"}

    publisher.delete_topic(topic=names.topic())
    with pytest.raises(exceptions.NotFound, match=r"Resource not found \(resource=drops\)"):
        publisher.get_topic(topic=names.topic())


def test_a_subscription_says_back_all_that_was_asked_of_it(subscriber, names, topic):
    asked = pubsub_v1.types.Subscription(
        name=names.subscription(),
        topic=topic,
        ack_deadline_seconds=30,
        retain_acked_messages=True,
        message_retention_duration=20 * MINUTE,
        labels={"env": "test"},
        enable_message_ordering=True,
        expiration_policy={"ttl": dt.timedelta(days=2)},
        filter='attributes:kind AND NOT attributes.kind = "old"',
        dead_letter_policy={"dead_letter_topic": names.topic("dead"), "max_delivery_attempts": 7},
        retry_policy={
            "minimum_backoff": dt.timedelta(seconds=1),
            "maximum_backoff": dt.timedelta(milliseconds=2500),
        },
        enable_exactly_once_delivery=True,
        state=pubsub_v1.types.Subscription.State.ACTIVE,
        push_config={},
    )
    subscriber.create_subscription(request=asked)
    assert subscriber.get_subscription(subscription=asked.name) == asked


def test_a_plain_subscription_has_googles_defaults(subscriber, subscribe):
    got = subscriber.get_subscription(subscription=subscribe())
    assert got.ack_deadline_seconds == 10
    assert got.message_retention_duration == dt.timedelta(days=7)
    assert got.expiration_policy.ttl == dt.timedelta(days=31)
    assert not got.retry_policy
    assert not got.dead_letter_policy


def test_an_update_changes_what_its_mask_names_and_nothing_else(subscriber, subscribe, endpoint):
    name = subscribe(retry_policy={"minimum_backoff": dt.timedelta(seconds=1)})
    change = {
        "name": name,
        "ack_deadline_seconds": 99,
        "labels": {"ignored": "yes"},
        "retry_policy": {"minimum_backoff": dt.timedelta(seconds=3)},
        "push_config": {"push_endpoint": endpoint.url},
    }
    paths = ["ack_deadline_seconds", "retry_policy.minimum_backoff", "push_config"]
    got = subscriber.update_subscription(
        request={"subscription": change, "update_mask": {"paths": paths}}
    )
    assert got == subscriber.get_subscription(subscription=name)
    assert got.ack_deadline_seconds == 99
    assert got.retry_policy.minimum_backoff == dt.timedelta(seconds=3)
    assert got.retry_policy.maximum_backoff == RetryPolicy().maximum_backoff
    assert got.push_config.push_endpoint == endpoint.url
    assert not got.labels

    subscriber.modify_push_config(subscription=name, push_config={})
    assert not subscriber.get_subscription(subscription=name).push_config.push_endpoint


def test_an_update_replaces_and_takes_away(subscriber, subscribe, names):
    name = subscribe(
        labels={"old": "yes"},
        dead_letter_policy={"dead_letter_topic": names.topic("dead")},
        retry_policy={"minimum_backoff": dt.timedelta(seconds=1)},
    )
    change = {"name": name, "labels": {"new": "yes"}, "expiration_policy": {}, "retry_policy": {}}
    paths = ["labels", "expiration_policy", "retry_policy", "dead_letter_policy"]
    got = subscriber.update_subscription(
        request={"subscription": change, "update_mask": {"paths": paths}}
    )
    assert dict(got.labels) == {"new": "yes"}
    assert not got.dead_letter_policy
    assert not got.expiration_policy.ttl, "an empty policy is one that never expires"
    assert got.retry_policy.minimum_backoff == RetryPolicy().minimum_backoff


@pytest.mark.parametrize(
    "path", ["filter", "topic", "enable_message_ordering", "ackDeadlineSeconds"]
)
def test_what_cannot_be_changed_is_refused_by_name(subscriber, subscribe, path):
    name = subscribe()
    with pytest.raises(exceptions.InvalidArgument, match=path):
        subscriber.update_subscription(
            request={"subscription": {"name": name}, "update_mask": {"paths": [path]}}
        )


def test_lists_come_in_pages(publisher, subscriber, names, topic, subscribe):
    subscriptions = [subscribe(f"sub-{number}") for number in range(5)]
    for number in range(3):
        publisher.create_topic(name=names.topic(f"topic-{number}"))
    publisher.create_topic(name="projects/proj-other/topics/drops")

    pages = subscriber.list_subscriptions(request={"project": names.project, "page_size": 2}).pages
    assert [[s.name for s in page.subscriptions] for page in pages] == [
        subscriptions[:2],
        subscriptions[2:4],
        subscriptions[4:],
    ]
    pages = publisher.list_topic_subscriptions(request={"topic": topic, "page_size": 3}).pages
    assert [list(page.subscriptions) for page in pages] == [subscriptions[:3], subscriptions[3:]]
    topics = [t.name for t in publisher.list_topics(project=names.project)]
    assert topics == [topic, *(names.topic(f"topic-{number}") for number in range(3))]


def test_what_is_taken_and_what_is_missing_are_said_as_google_says_it(
    publisher, subscriber, names, topic, subscribe
):
    name = subscribe()
    with pytest.raises(exceptions.AlreadyExists, match=r"already exists .*\(resource=drops\)"):
        publisher.create_topic(name=topic)
    with pytest.raises(exceptions.AlreadyExists, match=r"\(resource=register\)"):
        subscriber.create_subscription(name=name, topic=topic)
    missing = r"Resource not found \(resource=missing\)"
    with pytest.raises(exceptions.NotFound, match=missing):
        publisher.publish(names.topic("missing"), b"x").result(timeout=5)
    with pytest.raises(exceptions.NotFound, match=missing):
        subscriber.create_subscription(name=name + "-2", topic=names.topic("missing"))
    for method in (subscriber.get_subscription, subscriber.delete_subscription):
        with pytest.raises(exceptions.NotFound, match=missing):
            method(subscription=names.subscription("missing"))


def test_schemas_are_said_to_be_missing(cloud, names):
    client = SchemaServiceClient(transport=SchemaServiceGrpcTransport(channel=cloud.channel()))
    with pytest.raises(exceptions.MethodNotImplemented, match="no schemas"):
        list(client.list_schemas(parent=names.project))


def test_a_deleted_topic_leaves_its_subscriptions_what_they_have(
    publisher, subscriber, topic, subscribe, publish, pull
):
    subscription = subscribe()
    publish(b"last")
    publisher.delete_topic(topic=topic)

    assert subscriber.get_subscription(subscription=subscription).topic == "_deleted-topic_"
    assert [received.message.data for received in pull(subscription)] == [b"last"]

    publisher.create_topic(name=topic)
    publish(b"to the new one")
    assert pull(subscription) == []


def test_a_detached_subscription_loses_its_backlog_and_gets_nothing_more(
    cloud, publisher, subscriber, subscribe, publish, pull
):
    subscription = subscribe()
    publish(b"before")
    publisher.detach_subscription(request={"subscription": subscription})

    detached = subscriber.get_subscription(subscription=subscription)
    topic = detached.topic
    assert detached.detached
    assert list(publisher.list_topic_subscriptions(topic=topic)) == []
    with pytest.raises(exceptions.FailedPrecondition, match="detached"):
        pull(subscription)
    publish(b"after")
    assert cloud.held() == (0, 0)


def test_nothing_stays_in_the_database_once_everybody_has_acknowledged(
    cloud, subscriber, subscribe, publish, pull, ack
):
    first, second = subscribe("first"), subscribe("second")
    publish(b"one", b"two")
    assert cloud.held() == (2, 4)
    ack(first, *pull(first))
    assert cloud.held() == (2, 2)
    subscriber.delete_subscription(subscription=second)
    assert cloud.held() == (0, 0)
    publish(b"for one")
    subscriber.delete_subscription(subscription=first)
    publish(b"for nobody")
    assert cloud.held() == (0, 0)


def test_ensuring_twice_changes_nothing_and_ensuring_otherwise_changes_that(
    cloud, names, publish, pull
):
    pubsub = cloud.pubsub

    def ensure(**fields):
        return cloud.call(pubsub.ensure_subscription, names.subscription(), names.topic(), **fields)

    cloud.call(pubsub.ensure_topic, names.topic(), labels={"a": "b"})
    wanted = ensure(ack_deadline_s=20, retry=(1, 5), dead_letter_topic=names.topic("dead"))
    publish(b"kept")
    assert ensure(ack_deadline_s=20, retry=(1, 5), dead_letter_topic=names.topic("dead")) == wanted
    assert [got.message.data for got in pull(names.subscription())] == [b"kept"]

    ensure(ack_deadline_s=30)
    cloud.advance(minutes=1)
    assert [got.message.data for got in pull(names.subscription())] == [b"kept"]

    # A filter cannot be changed: what is ensured is made anew.
    ensure(filter="attributes:kind")
    assert pull(names.subscription()) == []
    publish({"attributes": {"kind": "x"}}, b"filtered out")
    assert len(pull(names.subscription())) == 1


def test_a_publication_commits_or_rolls_back_with_the_callers_transaction(
    cloud, topic, subscribe, streaming
):
    """An object and its notification are one: neither is seen without the other."""
    from sublet.local.pubsub.messages import Outgoing

    inbox = streaming(subscribe())

    class RolledBackError(Exception):
        pass

    def write(data, *, fails):
        with cloud.database.transaction():
            cloud.pubsub.publish(topic, [Outgoing(data=data)])
            cloud.pubsub.wake()
            if fails:
                raise RolledBackError

    with pytest.raises(RolledBackError):
        cloud.call(write, b"never", fails=True)
    cloud.call(write, b"committed", fails=False)
    assert [message.data for message in inbox.wait_for(1)] == [b"committed"]


def test_an_address_is_taken_once_and_must_be_of_this_machine(cloud, loop_thread):
    from sublet.errors import InvalidRequest
    from sublet.local.pubsub.grpc_server import PubSubServer

    with pytest.raises(OSError, match="cannot listen"):
        loop_thread.run(PubSubServer(cloud.pubsub).start(cloud.address))
    with pytest.raises(InvalidRequest, match="loopback only"):
        loop_thread.run(PubSubServer(cloud.pubsub).start("0.0.0.0:0"))


def test_a_port_can_be_kept_by_a_socket_until_the_server_takes_it(cloud, loop_thread):
    import socket

    from sublet.local.pubsub.grpc_server import PubSubServer

    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        server = PubSubServer(cloud.pubsub)
        address = loop_thread.run(server.start(reserved))
        try:
            assert address == f"127.0.0.1:{reserved.getsockname()[1]}"
            grpc.channel_ready_future(grpc.insecure_channel(address)).result(timeout=5)
        finally:
            loop_thread.run(server.stop())
