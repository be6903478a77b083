"""
Envelopes: a CloudEvent over HTTP (Eventarc, binary or structured) or a Pub/Sub push, opened
strictly. What comes out is one of our facts, or "an object was finalised"; anything else is a
malformed event.

Source: https://cloud.google.com/eventarc/docs/cloudevents,
    https://cloud.google.com/pubsub/docs/push#wrapped-messages
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar

from cloudevents.exceptions import GenericException as CloudEventError
from cloudevents.http import CloudEvent, from_http

from sublet.codec import decode_fact
from sublet.errors import InvalidRequest, MalformedEvent
from sublet.events import Fact, ObjectFinalized, ObjectFound
from sublet.names import AccountName, Generation

F = TypeVar("F", bound=Fact)

OBJECTS_TOPIC: Final = "sublet-objects-"
"""Each account has its own topic for its buckets' notifications: this, and the account's id."""

FOUND_TOPIC: Final = "sublet-object-found"
"""What the sweep found itself; it may name any account, so nobody else may publish there."""

_FINALIZED: Final = "google.cloud.storage.object.v1.finalized"
_PUBLISHED: Final = "google.cloud.pubsub.topic.v1.messagePublished"
_SUBSCRIPTION = re.compile(r"projects/[^/]+/subscriptions/([^/]+)")


@dataclass(frozen=True, slots=True)
class Message:
    """A Pub/Sub message and the subscription that it came by, which the sender cannot choose."""

    subscription: str
    attributes: Mapping[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class ObjectEvent:
    """A CloudEvent of Cloud Storage, by Eventarc."""

    data: Mapping[str, Any]


Envelope = Message | ObjectEvent


def open_envelope(headers: Mapping[str, str], body: bytes) -> Envelope:
    """
    Args:
        headers: by lower-case name.

    Raises:
        MalformedEvent: it is none of the forms above, with what is wrong.
    """
    is_structured = headers.get("content-type", "").startswith("application/cloudevents+json")
    if "ce-specversion" not in headers and not is_structured:
        return _message(strict_json(body))
    try:
        event = from_http(dict(headers), body, data_unmarshaller=_unmarshal)
    except (CloudEventError, ValueError, TypeError, KeyError) as error:
        raise MalformedEvent(f"not a CloudEvent: {type(error).__name__}") from None
    return _opened(event)


def object_finalized(envelope: Envelope) -> ObjectFinalized | None:
    """The finalised object that an envelope tells of; None for another kind of change."""
    if isinstance(envelope, ObjectEvent):
        data = envelope.data
        return _finalized(data.get("bucket"), data.get("name"), data.get("generation"), None)
    attributes = envelope.attributes
    if _subscription_id(envelope.subscription) == FOUND_TOPIC:
        found = fact_of(ObjectFound, envelope)
        return ObjectFinalized.of(found.object, found.account)
    if "eventType" not in attributes:
        raise MalformedEvent("not a notification of Cloud Storage: it has no eventType")
    if attributes["eventType"] != "OBJECT_FINALIZE":
        return None
    return _finalized(
        attributes.get("bucketId"),
        attributes.get("objectId"),
        attributes.get("objectGeneration"),
        _account_of(envelope.subscription),
    )


def fact_of(kind: type[F], envelope: Envelope) -> F:
    """One of our own facts, of the kind that the unit is there for."""
    if not isinstance(envelope, Message):
        raise MalformedEvent(f"expected a Pub/Sub message of type {kind.type}")
    fact = decode_fact(envelope.attributes.get("ce-type", ""), envelope.data)
    if not isinstance(fact, kind):
        raise MalformedEvent(f"got {fact.type}; expected {kind.type}")
    return fact


def strict_json(body: bytes | str) -> Any:  # noqa: ANN401  JSON is any
    """
    JSON without the parts that two readers read differently.

    Raises:
        MalformedEvent: not JSON, a key twice in one object, NaN, or nested beyond reading.
    """
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedEvent(f"not strict JSON: {type(error).__name__}") from None


def _unmarshal(body: bytes | str) -> Any:  # noqa: ANN401
    return strict_json(body) if body else None


def _opened(event: CloudEvent) -> Envelope:
    data = event.data
    if not isinstance(data, dict):
        raise MalformedEvent("the event's data is not a JSON object")
    match event["type"]:
        case "google.cloud.storage.object.v1.finalized":
            _check_agrees(event, data)
            return ObjectEvent(data)
        case "google.cloud.pubsub.topic.v1.messagePublished":
            return _message(data)
        case other:
            raise MalformedEvent(
                f"got event type {str(other)[:80]!r}; expected {_FINALIZED} or {_PUBLISHED}"
            )


def _check_agrees(event: CloudEvent, data: Mapping[str, Any]) -> None:
    """Source and subject say the same as the data, or somebody wrote one of them by hand."""
    source = f"//storage.googleapis.com/projects/_/buckets/{data.get('bucket')}"
    if event["source"] != source or event.get("subject") != f"objects/{data.get('name')}":
        raise MalformedEvent("the event's source and subject are not those of its data")


def _message(push: Any) -> Message:  # noqa: ANN401
    if not isinstance(push, dict) or not isinstance(push.get("message"), dict):
        raise MalformedEvent("not a Pub/Sub push: it has no message")
    subscription, message = push.get("subscription"), push["message"]
    attributes = message.get("attributes") or {}
    if not isinstance(subscription, str) or not isinstance(attributes, dict):
        raise MalformedEvent(
            "not a Pub/Sub push: no subscription, or attributes that are no object"
        )
    if not all(isinstance(value, str) for value in attributes.values()):
        raise MalformedEvent("an attribute of the message is not a string")
    try:
        data = base64.b64decode(message.get("data") or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise MalformedEvent("the message's data is not base64") from None
    return Message(subscription, attributes, data)


def _finalized(
    bucket: object, name: object, generation: object, account: AccountName | None
) -> ObjectFinalized:
    if not isinstance(bucket, str) or not isinstance(name, str) or not isinstance(generation, str):
        raise MalformedEvent("bucket, object or generation is missing, or is not a string")
    try:
        number = Generation.parse(generation)
    except InvalidRequest as error:
        raise MalformedEvent(str(error)) from None
    return ObjectFinalized(bucket=bucket, object=name, generation=number, account=account)


def _account_of(subscription: str) -> AccountName:
    """The account whose own channel this is: read from the subscription, never from the message."""
    subscription_id = _subscription_id(subscription)
    if not subscription_id.startswith(OBJECTS_TOPIC):
        raise MalformedEvent(f"subscription {subscription[:120]!r} belongs to no account")
    try:
        return AccountName.of(subscription_id.removeprefix(OBJECTS_TOPIC))
    except InvalidRequest as error:
        raise MalformedEvent(str(error)) from None


def _subscription_id(subscription: str) -> str:
    found = _SUBSCRIPTION.fullmatch(subscription)
    return found[1] if found else ""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
