"""
Protobuf to domain and back. What the domain has no word for is refused by name, never dropped: a
subscription that is said to write to BigQuery must not look as if it did.
"""

import base64
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from google.iam.v1 import policy_pb2  # type: ignore[import-untyped]
from google.protobuf import duration_pb2, timestamp_pb2
from google.pubsub_v1 import types

from sublet.buckets import POLICY_VERSION, Binding, Condition, Policy
from sublet.errors import InvalidRequest
from sublet.local.grpc_calls import Proto
from sublet.local.pubsub.delivery import Delivery
from sublet.local.pubsub.messages import Outgoing
from sublet.local.pubsub.names import (
    DELETED_TOPIC,
    SubscriptionName,
    TopicName,
    parse_subscription,
    parse_topic,
)
from sublet.local.pubsub.resources import (
    DeadLetterPolicy,
    OidcToken,
    Push,
    RetryPolicy,
    Snapshot,
    Subscription,
    Topic,
)
from sublet.names import Email

MAX_RESPONSE_BYTES: Final = 3 * 2**20
"""Of messages in one response: clients that PUBSUB_EMULATOR_HOST leads here take 4 MiB in all."""

TopicProto: Final[Proto] = types.Topic.pb()
SubscriptionProto: Final[Proto] = types.Subscription.pb()
PushConfigProto: Final[Proto] = types.PushConfig.pb()
SnapshotProto: Final[Proto] = types.Snapshot.pb()

_OUTPUT_ONLY: Final = {"state", "detached", "topic_message_retention_duration", "satisfies_pzs"}


def topic_from_proto(proto: Proto) -> Topic:
    _refuse_others(proto, "name", "labels", "message_retention_duration")
    return Topic(
        name=parse_topic(proto.name),
        labels=dict(proto.labels),
        message_retention=_optional_timedelta(proto, "message_retention_duration"),
    )


def topic_to_proto(topic: Topic) -> Proto:
    proto = TopicProto(name=topic.name, labels=topic.labels, state=types.Topic.State.ACTIVE)
    if topic.message_retention is not None:
        proto.message_retention_duration.CopyFrom(_duration(topic.message_retention))
    return proto


def subscription_from_proto(proto: Proto) -> Subscription:
    _refuse_others(
        proto,
        *("name", "topic", "push_config", "ack_deadline_seconds", "retain_acked_messages"),
        *("message_retention_duration", "labels", "enable_message_ordering", "expiration_policy"),
        *("filter", "dead_letter_policy", "retry_policy", "enable_exactly_once_delivery"),
    )
    defaults = Subscription(name=SubscriptionName(""), topic=TopicName(""))
    retention = _optional_timedelta(proto, "message_retention_duration")
    expires_after = defaults.expires_after
    if proto.HasField("expiration_policy"):
        expires_after = _optional_timedelta(proto.expiration_policy, "ttl")
    return Subscription(
        name=parse_subscription(proto.name),
        topic=DELETED_TOPIC if proto.topic == DELETED_TOPIC else parse_topic(proto.topic),
        push=push_from_proto(proto.push_config),
        ack_deadline_s=proto.ack_deadline_seconds or defaults.ack_deadline_s,
        retain_acked_messages=proto.retain_acked_messages,
        message_retention=defaults.message_retention if retention is None else retention,
        labels=dict(proto.labels),
        ordered=proto.enable_message_ordering,
        expires_after=expires_after,
        filter=proto.filter,
        dead_letter_policy=_dead_letter_policy_from_proto(proto),
        retry_policy=_retry_policy_from_proto(proto),
        detached=proto.detached,
        exactly_once=proto.enable_exactly_once_delivery,
    )


def subscription_to_proto(subscription: Subscription) -> Proto:
    proto = SubscriptionProto(
        name=subscription.name,
        topic=subscription.topic,
        push_config=push_to_proto(subscription.push),
        ack_deadline_seconds=subscription.ack_deadline_s,
        retain_acked_messages=subscription.retain_acked_messages,
        message_retention_duration=_duration(subscription.message_retention),
        labels=subscription.labels,
        enable_message_ordering=subscription.ordered,
        filter=subscription.filter,
        detached=subscription.detached,
        enable_exactly_once_delivery=subscription.exactly_once,
        state=types.Subscription.State.ACTIVE,
    )
    proto.expiration_policy.SetInParent()
    if subscription.expires_after is not None:
        proto.expiration_policy.ttl.CopyFrom(_duration(subscription.expires_after))
    if policy := subscription.dead_letter_policy:
        proto.dead_letter_policy.dead_letter_topic = policy.topic
        proto.dead_letter_policy.max_delivery_attempts = policy.max_delivery_attempts
    if retry := subscription.retry_policy:
        proto.retry_policy.minimum_backoff.CopyFrom(_duration(retry.minimum_backoff))
        proto.retry_policy.maximum_backoff.CopyFrom(_duration(retry.maximum_backoff))
    return proto


def push_from_proto(proto: Proto) -> Push | None:
    """Without an endpoint there is no push: that is how a subscription is told to be pulled."""
    if not proto.push_endpoint:
        return None
    oidc = None
    if proto.HasField("oidc_token") and proto.oidc_token.service_account_email:
        oidc = OidcToken(
            email=Email(proto.oidc_token.service_account_email.lower()),
            audience=proto.oidc_token.audience,
        )
    return Push(
        endpoint=proto.push_endpoint,
        oidc=oidc,
        attributes=dict(proto.attributes),
        wrapped=not proto.HasField("no_wrapper"),
        write_metadata=proto.HasField("no_wrapper") and proto.no_wrapper.write_metadata,
    )


def push_to_proto(push: Push | None) -> Proto:
    proto = PushConfigProto()
    if push is None:
        return proto
    proto.push_endpoint = push.endpoint
    proto.attributes.update(push.attributes)
    if push.oidc:
        proto.oidc_token.service_account_email = push.oidc.email
        proto.oidc_token.audience = push.oidc.audience
    if push.wrapped:
        proto.pubsub_wrapper.SetInParent()
    else:
        proto.no_wrapper.write_metadata = push.write_metadata
        proto.no_wrapper.SetInParent()
    return proto


def snapshot_to_proto(snapshot: Snapshot) -> Proto:
    return SnapshotProto(
        name=snapshot.name,
        topic=snapshot.topic,
        expire_time=_timestamp(snapshot.expires_at),
        labels=snapshot.labels,
    )


def outgoing_from_proto(proto: Proto) -> Outgoing:
    return Outgoing(
        data=proto.data, attributes=dict(proto.attributes), ordering_key=proto.ordering_key
    )


def fill_received_message(proto: Proto, delivery: Delivery) -> None:
    """Write a delivery into a ReceivedMessage that its response has just made room for."""
    message = delivery.message
    proto.ack_id = delivery.ack_id
    proto.delivery_attempt = delivery.attempt
    proto.message.data = message.data
    proto.message.attributes.update(message.attributes)
    proto.message.message_id = str(message.id)
    proto.message.publish_time.FromDatetime(message.published_at)
    proto.message.ordering_key = message.ordering_key


def instant(proto: Proto) -> datetime:
    time: datetime = proto.ToDatetime(tzinfo=UTC)
    return time


# --- IAM policies ---------------------------------------------------------------------------------


def policy_from_proto(proto: Proto) -> Policy:
    return Policy(
        version=proto.version or 1,
        etag=base64.b64encode(proto.etag).decode(),
        bindings=tuple(
            Binding(
                role=binding.role,
                members=tuple(binding.members),
                condition=Condition(
                    expression=binding.condition.expression, title=binding.condition.title
                )
                if binding.HasField("condition")
                else None,
            )
            for binding in proto.bindings
        ),
    )


def policy_to_proto(policy: Policy, requested_version: int) -> Proto:
    """
    At a version below 3 conditions cannot be said: their bindings show roles that nobody has, so
    that a reader who asked for too little does not take them for unconditional.

    Source: https://cloud.google.com/iam/docs/policies#versions
    """
    shows_conditions = requested_version >= POLICY_VERSION
    proto = policy_pb2.Policy(
        version=policy.version if shows_conditions else 1, etag=base64.b64decode(policy.etag)
    )
    for binding in policy.bindings:
        added = proto.bindings.add(role=binding.role, members=binding.members)
        if binding.condition and shows_conditions:
            added.condition.expression = binding.condition.expression
            added.condition.title = binding.condition.title
        elif binding.condition:
            digest = sha256(binding.condition.expression.encode()).hexdigest()[:20]
            added.role += f"_withcond_{digest}"
    return proto


# --- parts ----------------------------------------------------------------------------------------


def _dead_letter_policy_from_proto(proto: Proto) -> DeadLetterPolicy | None:
    if not proto.dead_letter_policy.dead_letter_topic:
        return None
    return DeadLetterPolicy(
        topic=parse_topic(proto.dead_letter_policy.dead_letter_topic),
        max_delivery_attempts=proto.dead_letter_policy.max_delivery_attempts or 5,
    )


def _retry_policy_from_proto(proto: Proto) -> RetryPolicy | None:
    if not proto.HasField("retry_policy"):
        return None
    defaults = RetryPolicy()
    least = _optional_timedelta(proto.retry_policy, "minimum_backoff")
    most = _optional_timedelta(proto.retry_policy, "maximum_backoff")
    return RetryPolicy(
        minimum_backoff=defaults.minimum_backoff if least is None else least,
        maximum_backoff=defaults.maximum_backoff if most is None else most,
    )


def _refuse_others(proto: Proto, *known: str) -> None:
    for descriptor, _ in proto.ListFields():
        if descriptor.name not in known and descriptor.name not in _OUTPUT_ONLY:
            raise InvalidRequest(
                f"this local Pub/Sub does not have {descriptor.name}; leave it out"
            )


def _optional_timedelta(proto: Proto, field: str) -> timedelta | None:
    if not proto.HasField(field):
        return None
    duration: timedelta = getattr(proto, field).ToTimedelta()
    return duration


def _duration(value: timedelta) -> Proto:
    proto = duration_pb2.Duration()
    proto.FromTimedelta(value)
    return proto


def _timestamp(value: datetime) -> Proto:
    proto = timestamp_pb2.Timestamp()
    proto.FromDatetime(value)
    return proto
