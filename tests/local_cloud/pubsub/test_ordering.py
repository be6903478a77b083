import pytest


@pytest.fixture
def ordered(subscribe):
    return subscribe("ordered", enable_message_ordering=True)


@pytest.fixture
def publish_keyed(publish):
    """Publish messages of several keys, alternating: a0 b0 a1 b1 ..."""

    def published(keys, numbers):
        publish(*({"data": f"{k}{n}".encode(), "ordering_key": k} for n in numbers for k in keys))

    return published


def data(received):
    return [got.message.data.decode() for got in received]


def of_key(received, key):
    return [text for text in data(received) if text.startswith(key)]


def test_each_key_comes_in_the_order_of_publication(ordered, publish_keyed, pull, ack):
    publish_keyed("ab", range(5))
    publish_keyed("ba", range(5, 8))
    received = pull(ordered)
    assert of_key(received, "a") == [f"a{n}" for n in range(8)]
    assert of_key(received, "b") == [f"b{n}" for n in range(8)]
    assert {got.message.ordering_key for got in received} == {"a", "b"}
    ack(ordered, *received)
    assert pull(ordered) == []


def test_nothing_of_a_key_comes_while_something_before_it_is_out(ordered, publish_keyed, pull, ack):
    publish_keyed("a", range(4))
    first, second = pull(ordered, 2)
    publish_keyed("b", range(1))
    assert data(pull(ordered)) == ["b0"]
    ack(ordered, second)
    assert pull(ordered) == []
    ack(ordered, first)
    assert data(pull(ordered)) == ["a2", "a3"]


def test_a_nacked_message_takes_those_behind_it_back_with_it(
    ordered, publish_keyed, pull, ack, nack
):
    publish_keyed("a", range(4))
    received = pull(ordered, 3)
    nack(ordered, received[1])
    ack(ordered, received[2])  # too late: it was taken back, else a1 would come after a2
    assert pull(ordered) == []
    ack(ordered, received[0])
    assert data(pull(ordered)) == ["a1", "a2", "a3"]


def test_a_batch_that_is_nacked_whole_comes_again_whole_and_in_order(
    ordered, publish_keyed, pull, nack
):
    publish_keyed("a", range(4))
    for _ in range(3):
        received = pull(ordered)
        assert data(received) == ["a0", "a1", "a2", "a3"]
        nack(ordered, *reversed(received))


def test_a_lease_that_ends_holds_back_what_is_behind_it(cloud, ordered, publish_keyed, pull):
    publish_keyed("a", range(3))
    pull(ordered, 2)
    cloud.advance(seconds=11)
    assert data(pull(ordered)) == ["a0", "a1", "a2"]


def test_a_back_off_holds_its_key_and_no_other(cloud, subscribe, publish_keyed, pull, nack):
    subscription = subscribe(
        enable_message_ordering=True, retry_policy={"minimum_backoff": {"seconds": 30}}
    )
    publish_keyed("a", range(2))
    nack(subscription, *pull(subscription, 1))
    publish_keyed("b", range(1))
    assert data(pull(subscription)) == ["b0"]
    cloud.advance(seconds=31)
    assert of_key(pull(subscription), "a") == ["a0", "a1"]


def test_a_dead_letter_lets_those_behind_it_pass(cloud, subscribe, publish_keyed, pull, nack):
    dead = "projects/proj-local/topics/dead"
    cloud.call(cloud.pubsub.ensure_topic, dead)
    policy = {"dead_letter_topic": dead, "max_delivery_attempts": 5}
    subscription = subscribe(enable_message_ordering=True, dead_letter_policy=policy)
    publish_keyed("a", range(3))
    for _ in range(5):
        received = pull(subscription)
        assert data(received) == ["a0", "a1", "a2"]
        nack(subscription, received[0])
    assert pull(subscription) == [], "the others are leased, and nothing is before them now"
    cloud.advance(seconds=11)
    assert data(pull(subscription)) == ["a1", "a2"]


def test_without_message_ordering_a_key_holds_nothing_back(subscribe, publish_keyed, pull):
    subscription = subscribe()
    publish_keyed("a", range(2))
    assert data(pull(subscription, 1)) == ["a0"]
    assert data(pull(subscription, 1)) == ["a1"]


def test_googles_client_sees_a_key_in_order_though_messages_fail(
    cloud, ordered, publish_keyed, streaming, eventually
):
    failures = {"a3", "a7", "b0"}

    def react(message):
        text = message.data.decode()
        if text in failures:
            failures.remove(text)
            message.nack()
        else:
            done.append(text)
            message.ack()

    done = []
    publish_keyed("ab", range(10))
    streaming(ordered, react)
    publish_keyed("ab", range(10, 20))
    eventually(lambda: cloud.held() == (0, 0))
    for key in "ab":
        # The client goes on with what it has when one fails; the server makes it do that again,
        # so the last time that each was done is in order.
        of_this_key = [text for text in done if text.startswith(key)]
        lasts = list(dict.fromkeys(reversed(of_this_key)))[::-1]
        assert lasts == [f"{key}{n}" for n in range(20)]
