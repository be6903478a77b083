"""google.pubsub.v1.Publisher, for gRPC and REST: requests in, one call, answers out."""

from typing import Final

from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from sublet.errors import InvalidRequest
from sublet.local.grpc_calls import Proto
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.guard import Guard
from sublet.local.pubsub.methods import Unary, merged
from sublet.local.pubsub.names import (
    DELETED_TOPIC,
    parse_project,
    parse_subscription,
    parse_topic,
)
from sublet.local.pubsub.resources import Snapshot, Subscription, Topic
from sublet.local.pubsub.wire import (
    outgoing_from_proto,
    topic_from_proto,
    topic_to_proto,
)

MAX_REQUEST_BYTES: Final = 10 * 2**20
_MUTABLE: Final = ("labels", "message_retention_duration")

PublishResponseProto: Final[Proto] = types.PublishResponse.pb()
ListTopicsResponseProto: Final[Proto] = types.ListTopicsResponse.pb()
ListTopicSubscriptionsResponseProto: Final[Proto] = types.ListTopicSubscriptionsResponse.pb()
ListTopicSnapshotsResponseProto: Final[Proto] = types.ListTopicSnapshotsResponse.pb()
DetachSubscriptionResponseProto: Final[Proto] = types.DetachSubscriptionResponse.pb()


class PublisherApi:
    def __init__(self, pubsub: PubSub) -> None:
        self._pubsub = pubsub
        self._guard = Guard(pubsub.iam)

    def methods(self) -> dict[str, Unary]:
        return {
            "CreateTopic": Unary(types.Topic.pb(), self.create_topic),
            "UpdateTopic": Unary(types.UpdateTopicRequest.pb(), self.update_topic),
            "Publish": Unary(types.PublishRequest.pb(), self.publish),
            "GetTopic": Unary(types.GetTopicRequest.pb(), self.get_topic),
            "ListTopics": Unary(types.ListTopicsRequest.pb(), self.list_topics),
            "ListTopicSubscriptions": Unary(
                types.ListTopicSubscriptionsRequest.pb(), self.list_topic_subscriptions
            ),
            "ListTopicSnapshots": Unary(
                types.ListTopicSnapshotsRequest.pb(), self.list_topic_snapshots
            ),
            "DeleteTopic": Unary(types.DeleteTopicRequest.pb(), self.delete_topic),
            "DetachSubscription": Unary(
                types.DetachSubscriptionRequest.pb(), self.detach_subscription
            ),
        }

    def create_topic(self, caller: Caller, request: Proto) -> Proto:
        topic = topic_from_proto(request)
        self._guard.check_project_of(caller, "create", topic.name)
        self._pubsub.create_topic(topic)
        return topic_to_proto(topic)

    def update_topic(self, caller: Caller, request: Proto) -> Proto:
        name = parse_topic(request.topic.name)
        self._guard.check(caller, "update", name)
        current = topic_to_proto(self._pubsub.catalogue.get(Topic, name))
        topic = topic_from_proto(merged(request.topic, current, request.update_mask, _MUTABLE))
        self._pubsub.update_topic(topic)
        return topic_to_proto(topic)

    def publish(self, caller: Caller, request: Proto) -> Proto:
        topic = parse_topic(request.topic)
        self._guard.check(caller, "publish", topic)
        if request.ByteSize() > MAX_REQUEST_BYTES:
            raise InvalidRequest(
                f"Request payload size exceeds the limit: {MAX_REQUEST_BYTES} bytes."
            )
        messages = [outgoing_from_proto(message) for message in request.messages]
        return PublishResponseProto(message_ids=self._pubsub.publish(topic, messages))

    def get_topic(self, caller: Caller, request: Proto) -> Proto:
        name = parse_topic(request.topic)
        self._guard.check(caller, "get", name)
        return topic_to_proto(self._pubsub.catalogue.get(Topic, name))

    def list_topics(self, caller: Caller, request: Proto) -> Proto:
        project = parse_project(request.project)
        self._guard.check_project(caller, "pubsub.topics.list", project)
        page = self._pubsub.catalogue.page_of_project(
            Topic, project, request.page_size, request.page_token
        )
        return ListTopicsResponseProto(
            topics=[topic_to_proto(topic) for topic in page.records],
            next_page_token=page.next_token,
        )

    def list_topic_subscriptions(self, caller: Caller, request: Proto) -> Proto:
        topic = parse_topic(request.topic)
        self._guard.check(caller, "get", topic)
        self._pubsub.catalogue.get(Topic, topic)
        page = self._pubsub.catalogue.page_of_topic(
            Subscription, topic, request.page_size, request.page_token
        )
        return ListTopicSubscriptionsResponseProto(
            subscriptions=[s.name for s in page.records if not s.detached],
            next_page_token=page.next_token,
        )

    def list_topic_snapshots(self, caller: Caller, request: Proto) -> Proto:
        topic = parse_topic(request.topic)
        self._guard.check(caller, "get", topic)
        self._pubsub.catalogue.get(Topic, topic)
        page = self._pubsub.catalogue.page_of_topic(
            Snapshot, topic, request.page_size, request.page_token
        )
        return ListTopicSnapshotsResponseProto(
            snapshots=[s.name for s in page.records], next_page_token=page.next_token
        )

    def delete_topic(self, caller: Caller, request: Proto) -> Proto:
        name = parse_topic(request.topic)
        self._guard.check(caller, "delete", name)
        self._pubsub.delete_topic(name)
        return empty_pb2.Empty()

    def detach_subscription(self, caller: Caller, request: Proto) -> Proto:
        name = parse_subscription(request.subscription)
        subscription = self._pubsub.catalogue.find(Subscription, name)
        attached = subscription is not None and subscription.topic != DELETED_TOPIC
        # The topic's owner decides; with no topic to ask for, the subscription's owner does.
        if subscription is not None and attached:
            self._guard.check(caller, "detachSubscription", subscription.topic)
        else:
            self._guard.check(caller, "update", name)
        self._pubsub.detach_subscription(name)
        return DetachSubscriptionResponseProto()
