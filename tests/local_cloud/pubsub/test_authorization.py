import datetime as dt
import queue
import re

import grpc
import pytest
from google.api_core import exceptions
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.pubsub_v1 import types

from sublet.buckets import Condition
from sublet.local.iam.tokens import Boundary, BoundaryRule
from sublet.names import Email

PROJECT = "projects/proj-local"
TOPIC = f"{PROJECT}/topics/drops"
SUBSCRIPTION = f"{PROJECT}/subscriptions/register"
SNAPSHOT = f"{PROJECT}/snapshots/before"
STALE = "1-1-1"
EVERYTHING = {
    f"pubsub.{kind}.{verb}"
    for kind, verbs in {
        "topics": "attachSubscription create delete detachSubscription get getIamPolicy list "
        "publish setIamPolicy update",
        "subscriptions": "consume create delete get getIamPolicy list setIamPolicy update",
        "snapshots": "create delete get getIamPolicy list seek setIamPolicy update",
    }.items()
    for verb in verbs.split()
}

METHODS = {
    "Publisher.CreateTopic": (types.Topic(name=f"{PROJECT}/topics/new"), ["topics.create"]),
    "Publisher.UpdateTopic": (
        types.UpdateTopicRequest(topic={"name": TOPIC}, update_mask={"paths": ["labels"]}),
        ["topics.update"],
    ),
    "Publisher.Publish": (
        types.PublishRequest(topic=TOPIC, messages=[{"data": b"x"}]),
        ["topics.publish"],
    ),
    "Publisher.GetTopic": (types.GetTopicRequest(topic=TOPIC), ["topics.get"]),
    "Publisher.ListTopics": (types.ListTopicsRequest(project=PROJECT), ["topics.list"]),
    "Publisher.ListTopicSubscriptions": (
        types.ListTopicSubscriptionsRequest(topic=TOPIC),
        ["topics.get"],
    ),
    "Publisher.ListTopicSnapshots": (types.ListTopicSnapshotsRequest(topic=TOPIC), ["topics.get"]),
    "Publisher.DeleteTopic": (types.DeleteTopicRequest(topic=TOPIC), ["topics.delete"]),
    "Publisher.DetachSubscription": (
        types.DetachSubscriptionRequest(subscription=SUBSCRIPTION),
        ["topics.detachSubscription"],
    ),
    "Subscriber.CreateSubscription": (
        types.Subscription(name=f"{PROJECT}/subscriptions/new", topic=TOPIC),
        ["subscriptions.create", "topics.attachSubscription"],
    ),
    "Subscriber.GetSubscription": (
        types.GetSubscriptionRequest(subscription=SUBSCRIPTION),
        ["subscriptions.get"],
    ),
    "Subscriber.UpdateSubscription": (
        types.UpdateSubscriptionRequest(
            subscription={"name": SUBSCRIPTION}, update_mask={"paths": ["labels"]}
        ),
        ["subscriptions.update"],
    ),
    "Subscriber.ListSubscriptions": (
        types.ListSubscriptionsRequest(project=PROJECT),
        ["subscriptions.list"],
    ),
    "Subscriber.DeleteSubscription": (
        types.DeleteSubscriptionRequest(subscription=SUBSCRIPTION),
        ["subscriptions.delete"],
    ),
    "Subscriber.ModifyAckDeadline": (
        types.ModifyAckDeadlineRequest(
            subscription=SUBSCRIPTION, ack_ids=[STALE], ack_deadline_seconds=10
        ),
        ["subscriptions.consume"],
    ),
    "Subscriber.Acknowledge": (
        types.AcknowledgeRequest(subscription=SUBSCRIPTION, ack_ids=[STALE]),
        ["subscriptions.consume"],
    ),
    "Subscriber.Pull": (
        types.PullRequest(subscription=SUBSCRIPTION, max_messages=1, return_immediately=True),
        ["subscriptions.consume"],
    ),
    "Subscriber.ModifyPushConfig": (
        types.ModifyPushConfigRequest(subscription=SUBSCRIPTION),
        ["subscriptions.update"],
    ),
    "Subscriber.GetSnapshot": (types.GetSnapshotRequest(snapshot=SNAPSHOT), ["snapshots.get"]),
    "Subscriber.ListSnapshots": (types.ListSnapshotsRequest(project=PROJECT), ["snapshots.list"]),
    "Subscriber.CreateSnapshot": (
        types.CreateSnapshotRequest(name=f"{PROJECT}/snapshots/new", subscription=SUBSCRIPTION),
        ["snapshots.create", "subscriptions.consume"],
    ),
    "Subscriber.UpdateSnapshot": (
        types.UpdateSnapshotRequest(snapshot={"name": SNAPSHOT}, update_mask={"paths": ["labels"]}),
        ["snapshots.update"],
    ),
    "Subscriber.DeleteSnapshot": (
        types.DeleteSnapshotRequest(snapshot=SNAPSHOT),
        ["snapshots.delete"],
    ),
    "Subscriber.Seek": (
        types.SeekRequest(subscription=SUBSCRIPTION, snapshot=SNAPSHOT),
        ["subscriptions.consume", "snapshots.seek"],
    ),
}


@pytest.fixture
def stranger(cloud):
    """An account without any right, and the client calls of its token."""
    return cloud.account("stranger")


@pytest.fixture
def resources(cloud, topic, subscribe, names):
    assert topic == TOPIC
    subscription = subscribe()
    client = cloud.subscriber()
    client.create_snapshot(name=names.snapshot(), subscription=subscription)


def call(cloud, email, method, request):
    service, _, name = method.partition(".")
    stub = cloud.channel(cloud.token(email)).unary_unary(
        f"/google.pubsub.v1.{service}/{name}", request_serializer=type(request).serialize
    )
    return stub(request, timeout=5)


@pytest.mark.usefixtures("resources")
@pytest.mark.parametrize("method", METHODS)
def test_each_method_wants_its_permissions_and_no_others(cloud, stranger, method):
    """All rights but one are too few by that one; the ones it names are enough."""
    request, wanted = METHODS[method]
    needed = {f"pubsub.{permission}" for permission in wanted}
    role = f"{PROJECT}/roles/tested"
    cloud.grant(PROJECT, role, stranger)
    for missing in needed:
        cloud.call(cloud.iam.create_role, role, frozenset(EVERYTHING - {missing}))
        with pytest.raises(grpc.RpcError) as raised:
            call(cloud, stranger, method, request)
        assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert missing in raised.value.details()
    cloud.call(cloud.iam.create_role, role, frozenset(needed))
    call(cloud, stranger, method, request)


def test_every_method_of_the_service_is_in_that_table(cloud):
    from sublet.local.pubsub.publisher_api import PublisherApi
    from sublet.local.pubsub.subscriber_api import SubscriberApi

    served = {f"Publisher.{name}" for name in PublisherApi(cloud.pubsub).methods()}
    served |= {f"Subscriber.{name}" for name in SubscriberApi(cloud.pubsub).methods()}
    assert served == set(METHODS)


def test_whoever_may_not_publish_is_told_which_right_is_missing(cloud, topic, stranger):
    publisher = cloud.publisher(cloud.token(stranger))
    with pytest.raises(exceptions.PermissionDenied) as raised:
        publisher.publish(topic, b"x").result(timeout=5)
    assert "pubsub.topics.publish" in str(raised.value)
    assert stranger in str(raised.value)

    cloud.grant(topic, "roles/pubsub.publisher", stranger)
    assert publisher.publish(topic, b"x").result(timeout=5)
    with pytest.raises(exceptions.PermissionDenied):
        publisher.get_topic(topic=topic)


def test_a_right_on_one_topic_is_none_on_another(cloud, names, topic, stranger):
    cloud.call(cloud.pubsub.ensure_topic, names.topic("other"))
    cloud.grant(topic, "roles/pubsub.publisher", stranger)
    publisher = cloud.publisher(cloud.token(stranger))
    publisher.publish(topic, b"x").result(timeout=5)
    with pytest.raises(exceptions.PermissionDenied, match="other"):
        publisher.publish(names.topic("other"), b"x").result(timeout=5)


def test_a_condition_on_the_resources_name_and_the_time_counts(cloud, names, topic, stranger):
    cloud.call(cloud.pubsub.ensure_topic, names.topic("other"))
    until = (cloud.clock.now() + dt.timedelta(minutes=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
    condition = Condition(
        title="this topic for a while",
        expression=f'resource.name == "{topic}" && request.time < timestamp("{until}") '
        '&& resource.type == "pubsub.googleapis.com/Topic"',
    )
    member = f"serviceAccount:{stranger}"
    cloud.call(cloud.iam.policies.grant, PROJECT, "roles/pubsub.publisher", member, condition)
    publisher = cloud.publisher(cloud.token(stranger))
    publisher.publish(topic, b"x").result(timeout=5)
    with pytest.raises(exceptions.PermissionDenied):
        publisher.publish(names.topic("other"), b"x").result(timeout=5)
    cloud.advance(minutes=11)
    with pytest.raises(exceptions.PermissionDenied):
        publisher.publish(topic, b"x").result(timeout=5)


def test_what_is_not_there_is_not_told_to_those_who_may_not_look(cloud, names, stranger):
    with pytest.raises(exceptions.PermissionDenied):
        cloud.publisher(cloud.token(stranger)).get_topic(topic=names.topic("missing"))


def test_a_token_nobody_issued_and_one_that_is_over_are_refused(cloud, topic, stranger):
    cloud.grant(PROJECT, "roles/pubsub.admin", stranger)
    with pytest.raises(exceptions.Unauthenticated, match="unknown access token"):
        cloud.publisher("ya29.forged").get_topic(topic=topic)
    publisher = cloud.publisher(cloud.token(stranger))
    publisher.get_topic(topic=topic)
    cloud.advance(hours=2)
    with pytest.raises(exceptions.Unauthenticated, match="expired"):
        publisher.get_topic(topic=topic)


def test_disabling_an_account_refuses_its_living_token(cloud, topic, stranger):
    cloud.grant(PROJECT, "roles/pubsub.admin", stranger)
    publisher = cloud.publisher(cloud.token(stranger))
    cloud.call(cloud.iam.service_accounts.set_disabled, stranger, disabled=True)
    with pytest.raises(exceptions.Unauthenticated, match="disabled"):
        publisher.get_topic(topic=topic)
    cloud.call(cloud.iam.service_accounts.set_disabled, stranger, disabled=False)
    publisher.get_topic(topic=topic)


def test_a_downscoped_token_is_for_cloud_storage_alone(cloud, topic, stranger):
    cloud.grant(PROJECT, "roles/pubsub.admin", stranger)
    boundary = Boundary(rules=(BoundaryRule(bucket="b", permissions=("pubsub.topics.get",)),))
    hour = dt.timedelta(hours=1)
    token = cloud.call(cloud.iam.tokens.mint, Email(stranger), hour, boundary).secret
    with pytest.raises(exceptions.PermissionDenied):
        cloud.publisher(token).get_topic(topic=topic)


def test_without_a_token_one_is_the_owner_only_where_that_was_said(make_cloud, names):
    strict = make_cloud(anonymous_is_owner=False)
    with pytest.raises(exceptions.Unauthenticated, match=r"pubsub\.topics\.create"):
        strict.publisher().create_topic(name=names.topic())


def test_a_stream_ends_when_the_right_to_consume_is_withdrawn(
    cloud, publish, subscribe, stranger, eventually
):
    """Nothing that is published afterwards is seen by whom it was withdrawn from."""
    subscription = subscribe()
    cloud.grant(subscription, "roles/pubsub.subscriber", stranger)
    received = []
    client = cloud.subscriber(cloud.token(stranger))
    future = client.subscribe(subscription, received.append)
    publish(b"before")
    eventually(lambda: received)
    cloud.revoke_all(subscription)
    publish(b"after")
    with pytest.raises(exceptions.PermissionDenied, match=r"pubsub\.subscriptions\.consume"):
        future.result(timeout=5)
    assert [message.data for message in received] == [b"before"]


def test_an_ack_through_an_open_stream_wants_the_right_too(cloud, publish, subscribe, stranger):
    subscription = subscribe()
    cloud.grant(subscription, "roles/pubsub.subscriber", stranger)
    publish(b"drop")
    requests = queue.Queue()
    first = {"subscription": subscription, "stream_ack_deadline_seconds": 60}
    requests.put(types.StreamingPullRequest(**first, max_outstanding_messages=1))
    responses = cloud.channel(cloud.token(stranger)).stream_stream(
        "/google.pubsub.v1.Subscriber/StreamingPull",
        request_serializer=types.StreamingPullRequest.serialize,
        response_deserializer=types.StreamingPullResponse.deserialize,
    )(iter(requests.get, None), timeout=9)
    (got,) = next(responses).received_messages
    # Once this call is answered the stream is past its own writing, and sleeps: it is full.
    cloud.subscriber().get_subscription(subscription=subscription)
    cloud.revoke_all(subscription)
    requests.put(types.StreamingPullRequest(ack_ids=[got.ack_id]))
    with pytest.raises(grpc.RpcError) as raised:
        next(responses)
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert cloud.held() == (1, 1)
    requests.put(None)


# --- the IAMPolicy service ------------------------------------------------------------------------


def binding(role, *members, **condition):
    made = policy_pb2.Binding(role=role, members=members)
    if condition:
        made.condition.title = condition["title"]
        made.condition.expression = condition["expression"]
    return made


def set_policy(client, resource, *bindings, etag=b"", version=1):
    policy = policy_pb2.Policy(bindings=bindings, etag=etag, version=version)
    return client.set_iam_policy(request={"resource": resource, "policy": policy})


def get_policy(client, resource, version=3):
    request = iam_policy_pb2.GetIamPolicyRequest(resource=resource)
    request.options.requested_policy_version = version
    return client.get_iam_policy(request=request)


def test_a_policy_set_through_the_service_is_the_one_that_is_enforced(
    cloud, publisher, topic, stranger
):
    theirs = cloud.publisher(cloud.token(stranger))
    set_policy(publisher, topic, binding("roles/pubsub.publisher", f"serviceAccount:{stranger}"))
    theirs.publish(topic, b"x").result(timeout=5)
    granted = theirs.test_iam_permissions(
        request={
            "resource": topic,
            "permissions": ["pubsub.topics.publish", "pubsub.topics.delete"],
        }
    )
    assert list(granted.permissions) == ["pubsub.topics.publish"]
    with pytest.raises(exceptions.PermissionDenied, match=r"pubsub\.topics\.setIamPolicy"):
        set_policy(theirs, topic)
    with pytest.raises(exceptions.PermissionDenied, match=r"pubsub\.topics\.getIamPolicy"):
        get_policy(theirs, topic)


def test_a_policy_changed_since_it_was_read_is_not_overwritten(publisher, topic):
    read = get_policy(publisher, topic)
    member = "user:owner@acme.example"
    set_policy(publisher, topic, binding("roles/pubsub.viewer", member), etag=read.etag)
    with pytest.raises(exceptions.Aborted, match="stale"):
        set_policy(publisher, topic, etag=read.etag)
    assert [b.role for b in get_policy(publisher, topic).bindings] == ["roles/pubsub.viewer"]


def test_conditions_are_shown_to_readers_of_version_3_and_look_like_no_role_to_others(
    publisher, subscriber, subscribe
):
    subscription = subscribe()
    condition = {"title": "soon over", "expression": 'request.time < timestamp("2100-01-01")'}
    member = "user:owner@acme.example"
    bound = binding("roles/pubsub.subscriber", member, **condition)
    with pytest.raises(exceptions.InvalidArgument, match="version 3"):
        set_policy(subscriber, subscription, bound)
    set_policy(subscriber, subscription, bound, version=3)

    assert list(get_policy(publisher, subscription).bindings) == [bound]
    blind = get_policy(publisher, subscription, version=1)
    assert blind.version == 1
    (shown,) = blind.bindings
    assert re.fullmatch(r"roles/pubsub\.subscriber_withcond_[0-9a-f]{20}", shown.role)
    assert not shown.HasField("condition")


def test_a_policy_goes_with_its_topic(cloud, publisher, topic, stranger):
    cloud.grant(topic, "roles/pubsub.publisher", stranger)
    publisher.delete_topic(topic=topic)
    publisher.create_topic(name=topic)
    with pytest.raises(exceptions.PermissionDenied):
        cloud.publisher(cloud.token(stranger)).publish(topic, b"x").result(timeout=5)


@pytest.mark.parametrize(
    ("resource", "error"),
    [
        (f"{PROJECT}/topics/missing", exceptions.NotFound),
        (f"{PROJECT}/subscriptions/missing", exceptions.NotFound),
        (f"{PROJECT}/snapshots/missing", exceptions.NotFound),
        (f"{PROJECT}/schemas/missing", exceptions.InvalidArgument),
        (PROJECT, exceptions.InvalidArgument),
    ],
)
def test_only_what_exists_has_a_policy(publisher, resource, error):
    with pytest.raises(error):
        get_policy(publisher, resource)
