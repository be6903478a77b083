import grpc
import pytest
from google.api_core import exceptions
from google.cloud.pubsub_v1.subscriber.exceptions import AcknowledgeError, AcknowledgeStatus
from google.pubsub_v1 import types

PERMANENT = "PERMANENT_FAILURE_INVALID_ACK_ID"


@pytest.fixture
def exact(subscribe):
    return subscribe("exact", enable_exactly_once_delivery=True)


def refusal(call):
    with pytest.raises(exceptions.FailedPrecondition) as raised:
        call()
    return dict(raised.value.metadata)


def test_an_ack_of_a_lease_that_is_over_is_refused_and_says_for_which_message(
    cloud, exact, publish, pull, ack, nack
):
    publish(b"drop")
    (got,) = pull(exact)
    cloud.advance(seconds=11)
    assert refusal(lambda: ack(exact, got)) == {got.ack_id: PERMANENT}
    assert refusal(lambda: nack(exact, got)) == {got.ack_id: PERMANENT}
    (again,) = pull(exact)
    ack(exact, again)
    assert cloud.held() == (0, 0)


def test_a_second_ack_is_refused(exact, publish, pull, ack):
    publish(b"drop")
    (got,) = pull(exact)
    ack(exact, got)
    assert refusal(lambda: ack(exact, got)) == {got.ack_id: PERMANENT}


def test_one_dead_ack_id_stops_the_batch_and_the_others_want_to_be_sent_again(
    cloud, exact, publish, pull, ack
):
    """Clients take an id that is not named to have failed for good: so each one is named."""
    publish(b"dead")
    (dead,) = pull(exact)
    cloud.advance(seconds=11)
    pull(exact)
    publish(b"living")
    (living,) = pull(exact)
    outcomes = refusal(lambda: ack(exact, dead, living))
    assert outcomes.pop(dead.ack_id) == PERMANENT
    assert outcomes.pop(living.ack_id).startswith("TRANSIENT_")
    assert cloud.held() == (2, 2), "nothing was acknowledged"
    ack(exact, living)
    assert cloud.held() == (1, 1)


def test_without_exactly_once_an_ack_that_is_too_late_is_silently_nothing(
    cloud, subscribe, publish, pull, ack
):
    subscription = subscribe()
    publish(b"drop")
    (late,) = pull(subscription)
    cloud.advance(seconds=11)
    (newer,) = pull(subscription)
    ack(subscription, late)
    assert cloud.held() == (1, 1)
    ack(subscription, newer)
    assert cloud.held() == (0, 0)


def test_googles_client_learns_whether_its_ack_counted(cloud, exact, publish, streaming):
    inbox = streaming(exact, lambda _: None)
    publish(b"drop")
    (first,) = inbox.wait_for(1)
    cloud.advance(seconds=601)
    _, second = inbox.wait_for(2)

    with pytest.raises(AcknowledgeError) as raised:
        first.ack_with_response().result(timeout=9)
    assert raised.value.error_code is AcknowledgeStatus.INVALID_ACK_ID
    assert second.ack_with_response().result(timeout=9) is AcknowledgeStatus.SUCCESS
    assert cloud.held() == (0, 0)


def test_a_stream_confirms_each_ack_and_each_deadline(cloud, exact, publish, pull):
    publish(b"dead", b"living")
    dead, living = pull(exact)
    cloud.advance(seconds=11)
    pull(exact, 1)
    call = cloud.channel().stream_stream(
        "/google.pubsub.v1.Subscriber/StreamingPull",
        request_serializer=types.StreamingPullRequest.serialize,
        response_deserializer=types.StreamingPullResponse.deserialize,
    )
    first = {"subscription": exact, "stream_ack_deadline_seconds": 60}
    responses = call(iter([types.StreamingPullRequest(**first)] * 1), timeout=9)
    (living,) = next(responses).received_messages

    def requests():
        yield types.StreamingPullRequest(
            **first,
            modify_deadline_ack_ids=[dead.ack_id, living.ack_id],
            modify_deadline_seconds=[60, 60],
            ack_ids=[dead.ack_id],
        )

    response = next(call(requests(), timeout=9))
    assert list(response.modify_ack_deadline_confirmation.invalid_ack_ids) == [dead.ack_id]
    assert list(response.modify_ack_deadline_confirmation.ack_ids) == [living.ack_id]
    assert list(response.acknowledge_confirmation.invalid_ack_ids) == [dead.ack_id]
    assert list(response.acknowledge_confirmation.ack_ids) == []
    assert response.subscription_properties.exactly_once_delivery_enabled


def test_it_is_not_for_push(subscribe, endpoint):
    with pytest.raises(exceptions.InvalidArgument, match="exactly-once"):
        subscribe(enable_exactly_once_delivery=True, push_config={"push_endpoint": endpoint.url})


def test_the_refusal_is_where_clients_look_for_it(cloud, exact, publish, pull):
    """In the trailer `grpc-status-details-bin`, with the same code and message as the status."""
    publish(b"drop")
    (got,) = pull(exact)
    cloud.advance(seconds=11)
    call = cloud.channel().unary_unary(
        "/google.pubsub.v1.Subscriber/Acknowledge",
        request_serializer=types.AcknowledgeRequest.serialize,
    )
    with pytest.raises(grpc.RpcError) as raised:
        call(types.AcknowledgeRequest(subscription=exact, ack_ids=[got.ack_id]))
    trailers = dict(raised.value.trailing_metadata())
    assert PERMANENT.encode() in trailers["grpc-status-details-bin"]
