"""The REST API, as Google's REST transport and plain HTTP meet it."""

import base64
import re
import threading

import pytest
import requests
from google.api_core import exceptions
from google.auth.credentials import AnonymousCredentials
from google.iam.v1 import policy_pb2
from google.oauth2.credentials import Credentials
from google.pubsub_v1 import PublisherClient, SubscriberClient, types
from local_cloud.pubsub.local_pubsub import PATIENCE_S
from local_cloud.pubsub.test_authorization import EVERYTHING, METHODS, PROJECT


@pytest.fixture
def clients(cloud):
    """Google's clients over REST: of nobody, or of a token."""

    def made(token=None):
        credentials = Credentials(token) if token else AnonymousCredentials()
        options = {"api_endpoint": cloud.serve_rest()}
        return tuple(
            kind(transport="rest", credentials=credentials, client_options=options)
            for kind in (PublisherClient, SubscriberClient)
        )

    return made


@pytest.fixture
def http(cloud):
    """Plain HTTP: a method, a path after /v1/PROJECT/, a body."""

    def call(method, path, body=None, **options):
        url = f"{cloud.serve_rest()}/v1/{PROJECT}/{path}"
        return requests.request(method, url, json=body, timeout=PATIENCE_S, **options)

    return call


def data(text):
    return base64.b64encode(text).decode()


def test_googles_rest_client_does_all_that_its_grpc_client_does(clients, names):
    publisher, subscriber = clients()
    topic = publisher.create_topic(request={"name": names.topic(), "labels": {"a": "1"}}).name
    changed = {"topic": {"name": topic, "labels": {"a": "2"}}, "update_mask": {"paths": ["labels"]}}
    assert publisher.update_topic(request=changed).labels == {"a": "2"}
    assert publisher.get_topic(topic=topic).labels == {"a": "2"}
    wanted = {
        "name": names.subscription(),
        "topic": topic,
        "filter": 'attributes.kind = "new"',
        "retry_policy": {"minimum_backoff": {"seconds": 1}},
        "retain_acked_messages": True,
    }
    made = subscriber.create_subscription(request=wanted)
    assert subscriber.get_subscription(subscription=made.name) == made
    assert (made.filter, made.retain_acked_messages) == (wanted["filter"], True)
    snapshot = subscriber.create_snapshot(name=names.snapshot(), subscription=made.name)
    assert subscriber.get_snapshot(snapshot=snapshot.name) == snapshot
    assert [t.name for t in publisher.list_topics(project=PROJECT)] == [topic]
    assert list(publisher.list_topic_subscriptions(topic=topic)) == [made.name]
    assert list(publisher.list_topic_snapshots(topic=topic)) == [snapshot.name]
    assert list(subscriber.list_subscriptions(project=PROJECT)) == [made]
    assert list(subscriber.list_snapshots(project=PROJECT)) == [snapshot]

    messages = [{"data": b"\x00\xff", "attributes": {"kind": k}} for k in ("new", "old")]
    ids = publisher.publish(topic=topic, messages=messages).message_ids
    (got,) = subscriber.pull(subscription=made.name, max_messages=10).received_messages
    assert (got.message.message_id, got.message.data) == (ids[0], b"\x00\xff")
    subscriber.modify_ack_deadline(
        subscription=made.name, ack_ids=[got.ack_id], ack_deadline_seconds=60
    )
    subscriber.acknowledge(subscription=made.name, ack_ids=[got.ack_id])
    subscriber.seek(request={"subscription": made.name, "snapshot": snapshot.name})
    (again,) = subscriber.pull(subscription=made.name, max_messages=10).received_messages
    assert again.message.message_id == ids[0]

    publisher.detach_subscription(request={"subscription": made.name})
    assert subscriber.get_subscription(subscription=made.name).detached
    subscriber.delete_snapshot(snapshot=snapshot.name)
    subscriber.delete_subscription(subscription=made.name)
    publisher.delete_topic(topic=topic)
    with pytest.raises(exceptions.NotFound, match="Resource not found"):
        publisher.get_topic(topic=topic)


def test_the_wire_is_googles_json(http, names):
    made = http("PUT", "topics/drops", {"messageRetentionDuration": "600s"})
    assert made.json() == {
        "name": names.topic(),
        "messageRetentionDuration": "600s",
        "state": "ACTIVE",
    }
    http("PUT", "subscriptions/register", {"topic": names.topic(), "ackDeadlineSeconds": 20})
    message = {"data": data(b"drop"), "attributes": {"kind": "new"}, "orderingKey": "k"}
    (message_id,) = http("POST", "topics/drops:publish", {"messages": [message]}).json()[
        "messageIds"
    ]
    pulled = http("POST", "subscriptions/register:pull", {"maxMessages": 1}).json()
    (received,) = pulled["receivedMessages"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", received["message"].pop("publishTime"))
    assert received["message"] == {**message, "messageId": message_id}
    acked = http("POST", "subscriptions/register:acknowledge", {"ackIds": [received["ackId"]]})
    assert (acked.status_code, acked.json()) == (200, {})


def test_a_push_endpoint_can_be_given_and_taken_away(http, topic, endpoint, publish):
    http("PUT", "subscriptions/register", {"topic": topic})
    config = {"pushConfig": {"pushEndpoint": endpoint.url}}
    assert http("POST", "subscriptions/register:modifyPushConfig", config).ok
    publish(b"drop")
    endpoint.wait_for(1)
    change = {"subscription": {"pushConfig": {}}, "updateMask": "pushConfig"}
    changed = http("PATCH", "subscriptions/register", change).json()
    assert "pushEndpoint" not in changed["pushConfig"]


def test_a_subscription_can_be_set_back_to_an_instant(http, topic, publish):
    http("PUT", "subscriptions/register", {"topic": topic, "retainAckedMessages": True})
    publish(b"drop")
    pull = {"maxMessages": 1, "returnImmediately": True}
    (got,) = http("POST", "subscriptions/register:pull", pull).json()["receivedMessages"]
    http("POST", "subscriptions/register:acknowledge", {"ackIds": [got["ackId"]]})
    assert http("POST", "subscriptions/register:pull", pull).json() == {}
    http("POST", "subscriptions/register:seek", {"time": got["message"]["publishTime"]})
    (again,) = http("POST", "subscriptions/register:pull", pull).json()["receivedMessages"]
    assert again["message"] == got["message"]


@pytest.mark.parametrize("data", ["-_-_", "+/+/"])
def test_both_alphabets_of_base64_are_read(http, topic, subscribe, pull, data):
    subscription = subscribe()
    assert http("POST", "topics/drops:publish", {"messages": [{"data": data}]}).ok
    (got,) = pull(subscription)
    assert got.message.data == b"\xfb\xff\xbf"


@pytest.mark.parametrize("mask", ["labels,ackDeadlineSeconds", "labels,ack_deadline_seconds"])
def test_a_mask_may_spell_fields_as_json_or_as_protobuf_does(http, topic, mask):
    http("PUT", "subscriptions/register", {"topic": topic})
    change = {"subscription": {"ackDeadlineSeconds": 20}, "updateMask": mask}
    assert http("PATCH", "subscriptions/register", change).json()["ackDeadlineSeconds"] == 20


def test_lists_come_in_pages_that_the_query_asks_for(http, names):
    for number in range(3):
        http("PUT", f"topics/drops-{number}")
    first = http("GET", "topics?pageSize=2&alt=json").json()
    rest = http("GET", "topics", params={"page_token": first["nextPageToken"]}).json()
    assert [t["name"] for t in first["topics"] + rest["topics"]] == [
        names.topic(f"drops-{number}") for number in range(3)
    ]


_BAD_BASE64 = (400, "INVALID_ARGUMENT", "'messages[0].data' (TYPE_BYTES)")


@pytest.mark.parametrize(
    ("call", "code", "status", "says"),
    [
        (("GET", "topics/none", None), 404, "NOT_FOUND", "Resource not found"),
        (("PUT", "topics/drops", {}), 409, "ALREADY_EXISTS", "already exists"),
        (("PUT", "topics/ab", {}), 400, "INVALID_ARGUMENT", "Invalid resource name"),
        (("PUT", "topics/googly", {}), 400, "INVALID_ARGUMENT", "not by 'goog'"),
        (("PUT", "topics/new", {"lables": {}}), 400, "INVALID_ARGUMENT", "lables"),
        (("GET", "topics?pagesize=1", None), 400, "INVALID_ARGUMENT", "pagesize"),
        (("PATCH", "topics/drops", {"topic": 1}), 400, "INVALID_ARGUMENT", "topic"),
        (("PATCH", "topics/drops", {"topic": {}}), 400, "INVALID_ARGUMENT", "update_mask"),
        (("POST", "topics/drops:publish", {"messages": [{}]}), 400, "INVALID_ARGUMENT", "empty"),
        (("POST", "topics/drops:publish", {"messages": [{"data": "a!b="}]}), *_BAD_BASE64),
        (("POST", "topics/drops:publish", {"messages": [{"data": 1}]}), *_BAD_BASE64),
        (("POST", "topics/drops:publish", {"messages": ["YQ=="]}), *_BAD_BASE64),
        (("POST", "topics/drops:publish", []), 400, "INVALID_ARGUMENT", "not a JSON object"),
        (("POST", "subscriptions/pushed:pull", {"maxMessages": 1}), 400, "FAILED_PRECONDITION", ""),
        (("POST", "schemas", {}), 501, "UNIMPLEMENTED", "has no schemas"),
        (("GET", "schemas/s:listRevisions", None), 501, "UNIMPLEMENTED", "has no schemas"),
        (("POST", "topics/drops:lick", {}), 405, "INVALID_ARGUMENT", "not allowed"),
        (("GET", "licks", None), 404, "NOT_FOUND", "no such path"),
    ],
)
def test_a_refusal_has_googles_form(http, push_to, call, code, status, says):
    push_to()
    answer = http(*call)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (code, code)
    assert says in error["message"]
    assert error["status"] == status


@pytest.mark.usefixtures("topic")
@pytest.mark.parametrize("size_bytes", [11_000_000, 21_000_000])
def test_nine_megabytes_pass_and_more_than_ten_are_refused_with_a_reason(http, size_bytes):
    small = {"messages": [{"data": data(b"x" * 9_000_000)}]}
    assert http("POST", "topics/drops:publish", small).ok
    large = {"messages": [{"data": data(b"x" * size_bytes)}]}
    refused = http("POST", "topics/drops:publish", large)
    assert refused.status_code == 400
    assert "payload size exceeds the limit" in refused.json()["error"]["message"]


def test_a_stale_ack_is_refused_with_the_id_that_is_dead(http, topic, publish):
    exact = {"topic": topic, "enableExactlyOnceDelivery": True}
    http("PUT", "subscriptions/register", exact)
    publish(b"drop")
    pulled = http("POST", "subscriptions/register:pull", {"maxMessages": 1}).json()
    ack = {"ackIds": [pulled["receivedMessages"][0]["ackId"]]}
    assert http("POST", "subscriptions/register:acknowledge", ack).ok
    refused = http("POST", "subscriptions/register:acknowledge", ack)
    assert refused.status_code == 400
    (detail,) = refused.json()["error"]["details"]
    assert detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert detail["metadata"] == {ack["ackIds"][0]: "PERMANENT_FAILURE_INVALID_ACK_ID"}


# --- waiting --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("topic")
def test_a_pull_waits_for_the_message_it_is_answered_with(
    cloud, subscribe, publish, clients, eventually
):
    subscription = subscribe()
    _, subscriber = clients()
    answers = []

    def pull():
        answers.append(subscriber.pull(subscription=subscription, max_messages=1, timeout=20))

    thread = threading.Thread(target=pull)
    thread.start()
    eventually(lambda: cloud.pubsub.deliveries.arrivals[subscription])
    publish(b"late")
    thread.join(PATIENCE_S)
    assert answers[0].received_messages[0].message.data == b"late"


def test_a_pull_for_nothing_is_answered_before_the_client_gives_up(http, subscribe):
    subscribe()
    patience = {"X-Server-Timeout": "0.2"}
    answer = http("POST", "subscriptions/register:pull", {"maxMessages": 1}, headers=patience)
    assert (answer.status_code, answer.json()) == (200, {})


def test_a_client_that_hangs_up_leaves_the_message_to_others(
    cloud, http, subscribe, publish, pull, eventually
):
    """Else it would be leased to nobody, and delayed for as long as the lease."""
    subscription = subscribe()
    with pytest.raises(requests.Timeout):
        requests.post(
            f"{cloud.serve_rest()}/v1/{subscription}:pull", json={"maxMessages": 1}, timeout=0.2
        )
    eventually(lambda: not cloud.pubsub.deliveries.arrivals[subscription])
    publish(b"drop")
    assert [got.message.data for got in pull(subscription)] == [b"drop"]


# --- who may --------------------------------------------------------------------------------------


def _call(clients, token, method, request):
    publisher, subscriber = clients(token)
    service, _, name = method.partition(".")
    client = publisher if service == "Publisher" else subscriber
    rpc = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return getattr(client, rpc)(request=request, timeout=5)


@pytest.fixture
def resources(cloud, subscribe, names):
    cloud.subscriber().create_snapshot(name=names.snapshot(), subscription=subscribe())


@pytest.mark.usefixtures("resources")
@pytest.mark.parametrize("method", METHODS)
def test_each_method_wants_the_permissions_that_it_wants_over_grpc(cloud, clients, method):
    stranger = cloud.account("stranger")
    token = cloud.token(stranger)
    request, wanted = METHODS[method]
    needed = {f"pubsub.{permission}" for permission in wanted}
    role = f"{PROJECT}/roles/tested"
    cloud.grant(PROJECT, role, stranger)
    for missing in needed:
        cloud.call(cloud.iam.create_role, role, frozenset(EVERYTHING - {missing}))
        with pytest.raises(exceptions.Forbidden, match=missing):
            _call(clients, token, method, request)
    cloud.call(cloud.iam.create_role, role, frozenset(needed))
    _call(clients, token, method, request)


def test_a_token_nobody_issued_is_refused_and_none_is_the_owner_only_where_that_was_said(
    make_cloud, http, topic
):
    forged = http("GET", "topics/drops", headers={"Authorization": "Bearer forged"})
    assert (forged.status_code, forged.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert http("GET", "topics/drops").ok
    denying = make_cloud(anonymous_is_owner=False)
    refused = requests.get(f"{denying.serve_rest()}/v1/{topic}", timeout=PATIENCE_S)
    assert refused.status_code == 401


def test_a_policy_set_over_rest_is_enforced_and_its_etag_guards_it(cloud, clients, topic):
    stranger = cloud.account("stranger")
    publisher, _ = clients()
    mine, _ = clients(cloud.token(stranger))
    permission = "pubsub.topics.publish"
    question = {"resource": topic, "permissions": [permission]}
    assert list(mine.test_iam_permissions(request=question).permissions) == []
    policy = publisher.get_iam_policy(
        request={"resource": topic, "options": {"requested_policy_version": 3}}
    )
    stale = policy_pb2.Policy()
    stale.CopyFrom(policy)
    policy.bindings.add(role="roles/pubsub.publisher", members=[f"serviceAccount:{stranger}"])
    publisher.set_iam_policy(request={"resource": topic, "policy": policy})
    assert list(mine.test_iam_permissions(request=question).permissions) == [permission]
    mine.publish(topic=topic, messages=[types.PubsubMessage(data=b"x")])
    with pytest.raises(exceptions.Conflict):
        publisher.set_iam_policy(request={"resource": topic, "policy": stale})
