import datetime as dt

import pytest
from google.api_core import exceptions
from google.cloud import pubsub_v1


@pytest.mark.parametrize("page", [{"page_token": "%%"}, {"page_size": -1}])
def test_a_page_that_never_was_is_refused(publisher, names, page):
    with pytest.raises(exceptions.InvalidArgument, match=next(iter(page))):
        list(publisher.list_topics(request={"project": names.project, **page}))


@pytest.mark.parametrize(
    "name", ["ab", "goog-x", "1abc", "a" * 256, "with space", "a/b", "", "ümlaut"]
)
def test_names_that_google_refuses_are_refused(publisher, subscriber, names, topic, name):
    with pytest.raises(exceptions.InvalidArgument, match="Invalid resource name given"):
        publisher.create_topic(name=f"{names.project}/topics/{name}")
    with pytest.raises(exceptions.InvalidArgument, match="Invalid resource name given"):
        subscriber.create_subscription(name=f"{names.project}/subscriptions/{name}", topic=topic)


@pytest.mark.parametrize("name", ["abc", "a" * 255, "a-b_c.d~e+f%25", "Goog"])
def test_names_that_google_takes_are_taken(publisher, names, name):
    assert publisher.create_topic(name=names.topic(name)).name == names.topic(name)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"ack_deadline_seconds": 9}, "expected 10 to 600"),
        ({"ack_deadline_seconds": 601}, "expected 10 to 600"),
        ({"message_retention_duration": dt.timedelta(minutes=9)}, "message_retention_duration"),
        ({"message_retention_duration": dt.timedelta(days=32)}, "message_retention_duration"),
        ({"expiration_policy": {"ttl": dt.timedelta(hours=23)}}, "expiration_policy"),
        ({"dead_letter_policy": {"max_delivery_attempts": 4}}, "max_delivery_attempts"),
        ({"dead_letter_policy": {"max_delivery_attempts": 101}}, "max_delivery_attempts"),
        ({"retry_policy": {"maximum_backoff": dt.timedelta(seconds=601)}}, "maximum_backoff"),
        ({"retry_policy": {"maximum_backoff": dt.timedelta(seconds=1)}}, "maximum_backoff"),
        ({"filter": "garbage ==="}, "Invalid filter"),
        ({"push_config": {"push_endpoint": "http://example.com/"}}, "loopback only"),
        ({"push_config": {"push_endpoint": "http://127.0.0.1@example.com/"}}, "loopback only"),
        ({"push_config": {"push_endpoint": "http://127.0.0.1.example.com/"}}, "loopback only"),
        ({"push_config": {"push_endpoint": "file:///etc/passwd"}}, "expected http"),
        ({"bigquery_config": {"table": "p.d.t"}}, "does not have bigquery_config"),
        ({"cloud_storage_config": {"bucket": "b"}}, "does not have cloud_storage_config"),
    ],
)
def test_what_a_subscription_cannot_be_is_refused_with_the_field(
    subscriber, subscribe, names, fields, complaint
):
    if "dead_letter_policy" in fields:
        fields["dead_letter_policy"]["dead_letter_topic"] = names.topic()
    with pytest.raises(exceptions.InvalidArgument, match=complaint):
        subscribe(**fields)
    assert list(subscriber.list_subscriptions(project=names.project)) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_every_name_of_this_machine_is_an_endpoint(subscribe, host):
    subscribe(push_config={"push_endpoint": f"http://{host}:1/path"})


def test_a_topic_field_that_is_not_here_is_refused(publisher, names):
    with pytest.raises(exceptions.InvalidArgument, match="does not have schema_settings"):
        publisher.create_topic(
            request={"name": names.topic(), "schema_settings": {"schema": "projects/p/schemas/s"}}
        )


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({}, "empty"),
        ({"attributes": {"": "x"}}, "attribute key"),
        ({"attributes": {"googleish": "x"}}, "attribute key"),
        ({"attributes": {"k" * 257: "x"}}, "attribute key"),
        ({"attributes": {"k": "x" * 1025}}, "longer than 1024"),
        ({"attributes": {str(n): "x" for n in range(101)}}, "at most 100"),
        ({"data": b"x", "ordering_key": "k" * 1025}, "ordering key"),
    ],
)
def test_a_message_out_of_bounds_is_refused_with_all_of_its_request(
    subscribe, publish, pull, message, complaint
):
    subscription = subscribe()
    with pytest.raises(exceptions.InvalidArgument, match=complaint):
        publish(b"good", message)
    assert pull(subscription) == []


def test_nine_megabytes_pass_and_eleven_are_refused_with_a_reason(subscribe, publish, pull):
    subscription = subscribe()
    publish(b"x" * 9_000_000)
    with pytest.raises(exceptions.InvalidArgument, match="payload size exceeds the limit"):
        publish(b"x" * 11_000_000)
    (received,) = pull(subscription)
    assert len(received.message.data) == 9_000_000


def test_a_client_that_came_by_the_environment_can_take_in_every_response(
    cloud, subscribe, publish, monkeypatch
):
    """It takes 4 MiB at most: a larger response would be lost, and its messages leased in vain."""
    subscription = subscribe()
    ids = {message_id for _ in range(2) for message_id in publish(*[b"x" * 100_000] * 50)}
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", cloud.address)
    client = pubsub_v1.SubscriberClient()
    received = set()
    while len(received) < len(ids):
        response = client.pull(subscription=subscription, max_messages=1000, timeout=5)
        received |= {got.message.message_id for got in response.received_messages}
    assert received == ids


def test_a_thousand_messages_go_in_one_request_and_no_more(subscribe, publish, pull):
    subscription = subscribe()
    assert len(publish(*[b"x"] * 1000)) == 1000
    with pytest.raises(exceptions.InvalidArgument, match="expected 1 to 1000"):
        publish(*[b"x"] * 1001)
    assert len(pull(subscription, 1000)) == 1000
