import base64
import datetime as dt
import itertools
import json
import socket
import threading

import pytest

from sublet.local.pubsub.push import FIRST_WINDOW, MAX_WINDOW


def bodies(requests):
    return [json.loads(request.body) for request in requests]


def pushed_data(requests):
    return [base64.b64decode(body["message"]["data"]).decode() for body in bodies(requests)]


def test_a_push_is_one_json_object_as_the_real_service_writes_it(
    cloud, push_to, publish, endpoint, eventually
):
    subscription = push_to()
    (message_id,) = publish({"data": b"drop", "attributes": {"kind": "new"}})
    (request,) = endpoint.wait_for(1)

    body = json.loads(request.body)
    published_at = body["message"]["publishTime"]
    assert body == {
        "subscription": subscription,
        "message": {
            "data": "ZHJvcA==",
            "attributes": {"kind": "new"},
            "messageId": message_id,
            "message_id": message_id,
            "publishTime": published_at,
            "publish_time": published_at,
        },
    }
    age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(published_at)
    assert dt.timedelta(0) < age < dt.timedelta(seconds=15)
    assert request.path == "/push"
    assert request.headers["content-type"] == "application/json"
    assert "authorization" not in request.headers
    eventually(lambda: cloud.held() == (0, 0))


def test_a_push_says_its_ordering_key_and_with_a_dead_letter_policy_its_attempt(
    push_to, publish, endpoint, names
):
    answers = iter([500, 204])
    endpoint.answer = lambda _: next(answers)
    push_to(dead_letter_policy={"dead_letter_topic": names.topic("dead")})
    publish({"data": b"drop", "ordering_key": "k"})
    got = bodies(endpoint.wait_for(2))
    assert [body["deliveryAttempt"] for body in got] == [1, 2]
    assert {body["message"]["orderingKey"] for body in got} == {"k"}


def test_unwrapped_a_push_is_the_data_and_if_asked_the_rest_as_headers(push_to, publish, endpoint):
    subscription = push_to(push={"no_wrapper": {"write_metadata": True}})
    (message_id,) = publish(
        {
            "data": b"\x00raw",
            "attributes": {
                "Content-Type": "application/x-drop",
                "kind": "new",
                "Authorization": "Bearer forged",
                "no header": "spaces in its name",
                "broken": "two\r\nlines",
            },
            "ordering_key": "k",
        }
    )
    (request,) = endpoint.wait_for(1)
    assert request.body == b"\x00raw"
    assert request.headers["content-type"] == "application/x-drop"
    assert request.headers["kind"] == "new"
    assert request.headers["x-goog-pubsub-subscription-name"] == subscription
    assert request.headers["x-goog-pubsub-message-id"] == message_id
    assert request.headers["x-goog-pubsub-ordering-key"] == "k"
    assert dt.datetime.fromisoformat(request.headers["x-goog-pubsub-publish-time"])
    assert not {"authorization", "no header", "broken"} & set(request.headers)


def test_unwrapped_without_metadata_a_push_is_the_data_alone(push_to, publish, endpoint):
    push_to(push={"no_wrapper": {}})
    publish({"data": b"raw", "attributes": {"kind": "new"}})
    (request,) = endpoint.wait_for(1)
    assert request.body == b"raw"
    assert "kind" not in request.headers
    assert not any(name.startswith("x-goog") for name in request.headers)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_these_answers_acknowledge(cloud, push_to, publish, endpoint, eventually, status):
    endpoint.answer = lambda _: status
    push_to()
    publish(b"drop")
    eventually(lambda: cloud.held() == (0, 0))
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("status", [203, 301, 302, 400, 403, 429, 500, 503])
def test_every_other_answer_gives_the_message_back_and_the_reason_is_kept(
    push_to, publish, endpoint, why, eventually, status
):
    """Redirects too: an endpoint is on this machine, where it leads to need not be."""
    endpoint.answer = lambda _: status
    subscription = push_to()
    publish(b"drop")
    endpoint.wait_for(2)
    assert why(subscription) == f"{endpoint.url} answered {status}"
    endpoint.answer = lambda _: 204
    eventually(lambda: why(subscription) is None)


def test_without_a_policy_the_waits_grow_from_a_tenth_of_a_second(push_to, publish, endpoint):
    endpoint.answer = lambda _: 500
    push_to()
    publish(b"drop")
    came_at = [request.at for request in endpoint.wait_for(4)]
    waits = [later - earlier for earlier, later in itertools.pairwise(came_at)]
    assert all(got >= least for got, least in zip(waits, (0.1, 0.2, 0.4), strict=True)), waits


def test_a_retry_policy_sets_the_waits(cloud, push_to, publish, endpoint, eventually):
    endpoint.answer = lambda _: 500
    policy = {"minimum_backoff": {"seconds": 100}, "maximum_backoff": {"seconds": 150}}
    push_to(retry_policy=policy)
    publish(b"drop")

    def next_attempt(failures):
        query = "SELECT available_at / 1e6 FROM pubsub_backlogs WHERE failures = ?"
        row = cloud.call(cloud.database.row, query, failures)
        return row and row[0] - cloud.clock.now().timestamp()

    for failures, wait_s in enumerate((100, 150, 150), start=1):
        endpoint.wait_for(failures)
        assert wait_s - 5 < eventually(lambda n=failures: next_attempt(n)) <= wait_s
        cloud.advance(seconds=wait_s)
    endpoint.wait_for(4)


def test_a_dead_letter_policy_ends_the_pushing(cloud, names, push_to, publish, endpoint, pull):
    letters = names.subscription("letters")
    cloud.call(cloud.pubsub.ensure_topic, names.topic("dead"))
    cloud.call(cloud.pubsub.ensure_subscription, letters, names.topic("dead"))
    endpoint.answer = lambda _: 500
    push_to(
        dead_letter_policy={"dead_letter_topic": names.topic("dead"), "max_delivery_attempts": 5},
        retry_policy={"minimum_backoff": {"seconds": 0}},
    )
    publish(b"poison")
    (letter,) = pull(letters, wait_s=8)
    assert letter.message.data == b"poison"
    assert [body["deliveryAttempt"] for body in bodies(endpoint.requests)] == [1, 2, 3, 4, 5]


def test_an_endpoint_that_is_too_slow_is_asked_again_when_the_ack_deadline_is_over(
    cloud, push_to, publish, endpoint, why, eventually
):
    release = threading.Event()
    first = threading.Event()

    def answer(_):
        if not first.is_set():
            first.set()
            release.wait(10)
        return 204

    endpoint.answer = answer
    subscription = push_to(ack_deadline_seconds=30)
    publish(b"drop")
    endpoint.wait_for(1)
    cloud.advance(seconds=31)
    eventually(lambda: "within the ack deadline" in (why(subscription) or ""))
    endpoint.wait_for(2)
    eventually(lambda: cloud.held() == (0, 0))
    release.set()


def test_a_dead_endpoint_is_tried_until_it_lives(cloud, subscribe, publish, why, eventually):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/"
        subscription = subscribe(push_config={"push_endpoint": url})
        publish(b"drop")
        eventually(lambda: "ConnectError" in (why(subscription) or ""))
        assert cloud.held() == (1, 1)


def test_the_first_pushes_are_ten_and_each_success_makes_room_for_one_more(
    push_to, publish, endpoint, eventually
):
    held_back = [threading.Event() for _ in range(4)]
    order = itertools.count()

    def answer(_):
        number = next(order)
        stage = 0 if number < 10 else 1 if number < 30 else 2 if number < 70 else 3
        return 204 if held_back[stage].wait(10) else 500

    endpoint.answer = answer
    push_to()
    publish(*[b"x"] * 300)
    for stage, at_once in enumerate((FIRST_WINDOW, 20, 40, 80)):
        eventually(lambda n=at_once: endpoint.in_flight == n)
        held_back[stage].set()
    requests = endpoint.wait_for(300)
    assert endpoint.most_in_flight <= MAX_WINDOW
    assert len({body["message"]["messageId"] for body in bodies(requests)}) == 300


def test_failures_bring_fewer_at_once(cloud, push_to, publish, endpoint, eventually):
    endpoint.answer = lambda _: 503
    subscription = push_to(retry_policy={"minimum_backoff": {"seconds": 600}})
    publish(*[b"x"] * 10)
    endpoint.wait_for(10)
    eventually(lambda: cloud.held() == (10, 10) and not _leased(cloud, subscription))

    crowded = threading.Event()

    def answer(_):
        # Another request beside the first one would come at once; wait for it a while.
        if endpoint.in_flight > 1:
            crowded.set()
        return 500 if crowded.wait(0.2) else 204

    endpoint.answer = answer
    publish(b"a", b"b")
    endpoint.wait_for(11)
    eventually(lambda: not endpoint.in_flight)
    assert not crowded.is_set()


def _leased(cloud, subscription):
    row = cloud.call(
        cloud.database.row,
        "SELECT COUNT(*) FROM pubsub_backlogs WHERE holder = ? AND NOT failures",
        subscription,
    )
    return row[0]


def test_a_key_is_pushed_one_at_a_time_and_in_order(push_to, publish, endpoint):
    push_to(enable_message_ordering=True)
    publish(*({"data": b"%d" % n, "ordering_key": "k"} for n in range(20)))
    assert pushed_data(endpoint.wait_for(20)) == [str(n) for n in range(20)]
    assert endpoint.most_in_flight == 1


def test_a_subscription_can_begin_to_push_and_cease(subscribe, subscriber, publish, endpoint, pull):
    subscription = subscribe()
    publish(b"waiting")
    config = {"push_endpoint": endpoint.url}
    subscriber.modify_push_config(subscription=subscription, push_config=config)
    assert pushed_data(endpoint.wait_for(1)) == ["waiting"]
    subscriber.modify_push_config(subscription=subscription, push_config={})
    publish(b"to be pulled")
    assert [got.message.data for got in pull(subscription, wait_s=5)] == [b"to be pulled"]


def test_deleting_a_subscription_breaks_its_pushes_off_and_no_others(
    push_to, subscriber, publish, endpoint, cloud, eventually
):
    release = threading.Event()
    endpoint.answer = lambda _: 204 if release.wait(10) else 500
    doomed = push_to("doomed")
    publish(b"drop")
    endpoint.wait_for(1)
    subscriber.delete_subscription(subscription=doomed)
    push_to("other")
    release.set()
    publish(b"other")
    assert "other" in pushed_data(endpoint.wait_for(2))
    eventually(lambda: cloud.held() == (0, 0))


def test_what_was_not_pushed_before_a_restart_is_pushed_after_it(
    cloud, push_to, publish, endpoint, last_failure
):
    answers = iter([503])
    endpoint.answer = lambda _: next(answers, 204)
    subscription = push_to(retry_policy={"minimum_backoff": {"seconds": 600}})
    publish(b"drop")
    endpoint.wait_for(1)
    assert "503" in last_failure(subscription)
    cloud.restart()
    cloud.advance(seconds=601)
    assert pushed_data(endpoint.wait_for(2)) == ["drop", "drop"]
