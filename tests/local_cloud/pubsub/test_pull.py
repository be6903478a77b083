import datetime as dt
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.api_core import exceptions

from sublet.local.pubsub.resources import Subscription


def seconds(number):
    return dt.timedelta(seconds=number)


def data(received):
    return [got.message.data for got in received]


def test_what_is_leased_is_nobody_elses_until_the_deadline(cloud, subscribe, publish, pull):
    subscription = subscribe(ack_deadline_seconds=20)
    publish(b"drop")
    assert data(pull(subscription)) == [b"drop"]
    cloud.advance(seconds=19)
    assert pull(subscription) == []
    cloud.advance(seconds=2)
    assert data(pull(subscription)) == [b"drop"]


def test_what_is_acknowledged_never_comes_again(cloud, subscribe, publish, pull, ack):
    subscription = subscribe()
    publish(b"one", b"two")
    ack(subscription, pull(subscription, 1)[0])
    cloud.advance(hours=1)
    assert data(pull(subscription)) == [b"two"]


def test_each_subscription_has_a_copy_of_its_own(subscribe, publish, pull, ack):
    first, second = subscribe("first"), subscribe("second")
    publish(b"drop")
    ack(first, *pull(first))
    assert data(pull(second)) == [b"drop"]


@pytest.fixture
def waiting_pull(cloud, pull, eventually):
    """Start a pull, and go on once the server has it waiting; it answers what it received."""
    pool = ThreadPoolExecutor()

    def started(subscription, most=100):
        pulling = pool.submit(pull, subscription, most, wait_s=8)
        eventually(lambda: cloud.pubsub.deliveries.arrivals[subscription])
        return lambda: pulling.result(timeout=5)

    yield started
    pool.shutdown()


def test_a_waiting_pull_is_answered_when_the_message_comes(subscribe, publish, waiting_pull):
    received = waiting_pull(subscribe())
    publish(b"drop")
    assert data(received()) == [b"drop"]


def test_a_waiting_pull_is_answered_when_a_lease_ends(
    cloud, subscribe, publish, pull, waiting_pull
):
    """The clock moves while the call waits: the timer must look again, without a new arrival."""
    subscription = subscribe()
    publish(b"drop")
    pull(subscription)
    received = waiting_pull(subscription)
    cloud.advance(seconds=11)
    assert data(received()) == [b"drop"]


def test_what_comes_back_in_one_consumers_call_wakes_the_others(
    cloud, subscribe, publish, pull, waiting_pull
):
    """
    The call finds both leases over and takes one of the messages, if the timer did not look first.
    """
    subscription = subscribe()
    publish(b"one", b"two")
    pull(subscription)
    received = waiting_pull(subscription, 1)
    cloud.clock.moved += dt.timedelta(seconds=11)
    assert len(pull(subscription, 1)) == 1
    assert len(received()) == 1


def test_each_of_many_waiting_pulls_is_answered(subscribe, publish, waiting_pull):
    """None takes the wake-up of another."""
    subscription = subscribe()
    waiting = [waiting_pull(subscription) for _ in range(5)]
    ids = set()
    for _ in waiting:
        ids |= set(publish(b"drop"))
    received = [received() for received in waiting]
    assert {got.message.message_id for answer in received for got in answer} == ids
    assert sum(len(answer) for answer in received) == len(ids)


def test_a_pull_that_waits_when_the_server_stops_is_told_to_try_again(
    cloud, subscribe, publish, waiting_pull
):
    received = waiting_pull(subscribe())
    cloud.restart()
    publish(b"drop")
    assert data(received()) == [b"drop"]


def test_a_pull_for_nothing_is_answered_before_its_client_gives_up(subscribe, pull):
    began = time.monotonic()
    assert pull(subscribe(), wait_s=1) == [], "else DeadlineExceeded would be raised"
    assert time.monotonic() - began > 0.8


def test_an_extended_lease_lasts_as_long_as_it_was_extended(
    cloud, subscriber, subscribe, publish, pull, ack
):
    subscription = subscribe()
    publish(b"drop")
    (got,) = pull(subscription)
    for _ in range(3):
        cloud.advance(seconds=9)
        subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[got.ack_id], ack_deadline_seconds=10
        )
    assert pull(subscription) == []
    cloud.advance(seconds=9)
    ack(subscription, got)
    cloud.advance(hours=1)
    assert pull(subscription) == []


@pytest.mark.parametrize("deadline", [-1, 601])
def test_a_deadline_out_of_bounds_is_refused(subscriber, subscribe, publish, pull, deadline):
    subscription = subscribe()
    publish(b"drop")
    (got,) = pull(subscription)
    with pytest.raises(exceptions.InvalidArgument, match="expected 0 to 600"):
        subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[got.ack_id], ack_deadline_seconds=deadline
        )


def test_an_ack_of_an_older_lease_does_nothing(cloud, subscribe, publish, pull, ack, nack):
    """Else a slow worker's late answer would take the message from the one that has it now."""
    subscription = subscribe()
    publish(b"drop")
    (older,) = pull(subscription)
    cloud.advance(seconds=11)
    (newer,) = pull(subscription)
    assert newer.ack_id != older.ack_id

    ack(subscription, older)
    nack(subscription, older)
    assert pull(subscription) == []
    cloud.advance(seconds=11)
    assert data(pull(subscription)) == [b"drop"]


def test_who_has_given_a_message_back_has_no_more_say_in_it(
    cloud, subscribe, publish, pull, ack, nack
):
    subscription = subscribe()
    publish(b"drop")
    (got,) = pull(subscription)
    nack(subscription, got)
    ack(subscription, got)
    assert data(pull(subscription)) == [b"drop"]


def test_an_ack_that_is_late_but_overtaken_by_nobody_counts(cloud, subscribe, publish, pull, ack):
    subscription = subscribe()
    publish(b"drop")
    (got,) = pull(subscription)
    cloud.advance(seconds=11)
    ack(subscription, got)
    cloud.advance(hours=1)
    assert pull(subscription) == []


def test_an_ack_id_of_another_subscription_does_nothing_and_garbage_is_refused(
    cloud, subscribe, publish, pull, ack, subscriber
):
    first, second = subscribe("first"), subscribe("second")
    publish(b"drop")
    (got,) = pull(first)
    pull(second)
    ack(second, got)
    cloud.advance(seconds=11)
    assert data(pull(second)) == [b"drop"]
    with pytest.raises(exceptions.InvalidArgument, match="invalid ack ID"):
        subscriber.acknowledge(subscription=first, ack_ids=["garbage"])


def test_a_nack_without_a_policy_gives_the_message_back_at_once(subscribe, publish, pull, nack):
    subscription = subscribe()
    publish(b"drop")
    for _ in range(3):
        (got,) = pull(subscription)
        nack(subscription, got)
    assert data(pull(subscription)) == [b"drop"]


def test_a_retry_policy_makes_pull_wait_twice_as_long_each_time_up_to_its_maximum(
    cloud, subscribe, publish, pull, nack
):
    subscription = subscribe(
        retry_policy={"minimum_backoff": seconds(10), "maximum_backoff": seconds(35)}
    )
    publish(b"drop")
    for wait_s in (10, 20, 35, 35):
        (got,) = pull(subscription)
        nack(subscription, got)
        cloud.advance(seconds=wait_s - 1)
        assert pull(subscription) == []
        cloud.advance(seconds=2)
    assert data(pull(subscription)) == [b"drop"]


def test_a_lease_that_runs_out_waits_like_a_nack(cloud, subscribe, publish, pull):
    subscription = subscribe(retry_policy={"minimum_backoff": seconds(100)})
    publish(b"drop")
    pull(subscription)
    cloud.advance(seconds=11)
    assert pull(subscription) == []
    cloud.advance(seconds=100)
    assert data(pull(subscription)) == [b"drop"]


def test_one_message_that_always_fails_does_not_hide_the_others(subscribe, publish, pull, nack):
    subscription = subscribe()
    for hundred in range(25):
        publish(*(b"%d" % (100 * hundred + number) for number in range(100)))
    seen = set()
    for _ in range(12):  # the backlog is read in pages of a thousand
        received = pull(subscription, 250)
        seen.update(data(received))
        nack(subscription, *(got for got in received if got.message.data == b"0"))
    assert len(seen) == 2500


@pytest.fixture
def letters(cloud, names):
    """A subscription of the dead letter topic."""
    cloud.call(cloud.pubsub.ensure_topic, names.topic("dead"))
    cloud.call(cloud.pubsub.ensure_subscription, names.subscription("letters"), names.topic("dead"))
    return names.subscription("letters")


@pytest.fixture
def with_letters(subscribe, letters, names):
    """A subscription that sends there what has failed five times."""
    assert letters
    policy = {"dead_letter_topic": names.topic("dead"), "max_delivery_attempts": 5}
    return subscribe(dead_letter_policy=policy)


def test_after_the_last_attempt_the_message_moves_to_the_dead_letter_topic(
    with_letters, letters, publish, pull, nack
):
    publish({"data": b"poison", "attributes": {"kind": "bad"}, "ordering_key": "k"})
    attempts = []
    for _ in range(5):
        assert pull(letters) == []
        (got,) = pull(with_letters)
        attempts.append(got.delivery_attempt)
        nack(with_letters, got)
    assert attempts == [1, 2, 3, 4, 5]
    assert pull(with_letters) == []

    (letter,) = pull(letters)
    published_at = got.message.publish_time.isoformat(timespec="milliseconds")
    assert letter.message.data == b"poison"
    assert letter.message.ordering_key == "k"
    assert dict(letter.message.attributes) == {
        "kind": "bad",
        "CloudPubSubDeadLetterSourceDeliveryCount": "5",
        "CloudPubSubDeadLetterSourceSubscription": "register",
        "CloudPubSubDeadLetterSourceSubscriptionProject": "proj-local",
        "CloudPubSubDeadLetterSourceTopicPublishTime": published_at,
    }
    assert letter.delivery_attempt == 0, "the letters' subscription has no policy"


def test_running_out_of_leases_is_an_attempt_too_and_nobody_need_ask(
    cloud, with_letters, letters, publish, pull
):
    publish(b"poison")
    for attempt in range(1, 6):
        (got,) = pull(with_letters)
        assert got.delivery_attempt == attempt
        cloud.advance(seconds=11)
    assert data(pull(letters, wait_s=5)) == [b"poison"]


def test_a_full_house_of_attributes_can_still_be_dead_lettered(
    with_letters, letters, publish, pull, nack
):
    publish({"attributes": {str(number): "x" for number in range(100)}})
    for _ in range(5):
        nack(with_letters, *pull(with_letters))
    (letter,) = pull(letters)
    assert len(letter.message.attributes) == 104


def test_without_its_dead_letter_topic_a_message_is_delivered_on(
    names, subscribe, publish, pull, nack
):
    subscription = subscribe(
        dead_letter_policy={"dead_letter_topic": names.topic("gone"), "max_delivery_attempts": 5}
    )
    publish(b"poison")
    for _ in range(6):
        (got,) = pull(subscription)
        nack(subscription, got)
    assert got.delivery_attempt == 6


def test_what_is_older_than_the_retention_is_dropped(cloud, subscribe, publish, pull, nack):
    subscription = subscribe(message_retention_duration=dt.timedelta(minutes=10))
    publish(b"old", b"old")
    nack(subscription, pull(subscription)[0])  # one is ready again, one is leased
    cloud.advance(minutes=6)
    publish(b"new")
    cloud.advance(minutes=5)
    assert data(pull(subscription)) == [b"new"]
    cloud.advance(minutes=10)
    assert cloud.held() == (0, 0)
    assert pull(subscription) == []


def test_a_subscription_that_nobody_uses_expires_and_one_in_use_does_not(
    cloud, subscribe, streaming, publish, eventually
):
    unused = subscribe("unused", expiration_policy={"ttl": dt.timedelta(days=7)})
    kept = subscribe("kept", expiration_policy={})
    used = subscribe("used", expiration_policy={"ttl": dt.timedelta(days=7)})
    inbox = streaming(used)
    publish(b"so that the stream is known to be open")
    inbox.wait_for(1)
    eventually(lambda: cloud.held() == (1, 2))

    def left():
        return {s.name for s in cloud.call(cloud.pubsub.catalogue.all, Subscription)}

    cloud.advance(days=6)
    assert left() == {unused, kept, used}
    cloud.advance(days=2)
    eventually(lambda: left() == {kept, used})


def test_a_push_subscription_cannot_be_pulled(subscribe, pull, endpoint, subscriber):
    subscription = subscribe(push_config={"push_endpoint": endpoint.url})
    with pytest.raises(exceptions.FailedPrecondition, match="push subscription"):
        pull(subscription)
    subscriber.modify_push_config(subscription=subscription, push_config={})
    assert pull(subscription) == []


def test_an_ack_of_nothing_is_refused(subscriber, subscribe):
    subscription = subscribe()
    with pytest.raises(exceptions.InvalidArgument, match="No ack ids"):
        subscriber.acknowledge(subscription=subscription, ack_ids=[])
    with pytest.raises(exceptions.InvalidArgument, match="No ack ids"):
        subscriber.modify_ack_deadline(
            subscription=subscription, ack_ids=[], ack_deadline_seconds=10
        )


@pytest.mark.parametrize("most", [0, -1])
def test_a_pull_of_no_messages_is_refused(subscribe, pull, most):
    with pytest.raises(exceptions.InvalidArgument, match="max_messages"):
        pull(subscribe(), most)


def test_a_message_larger_than_a_response_comes_alone(subscribe, publish, pull):
    subscription = subscribe()
    publish(b"small")
    publish(b"x" * 5_000_000)
    publish(b"small")
    assert [len(got.message.data) for got in pull(subscription)] == [5]
    assert [len(got.message.data) for got in pull(subscription)] == [5_000_000]
    assert [len(got.message.data) for got in pull(subscription)] == [5]
