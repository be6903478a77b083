"""
What a push sends, and as whom. Wrapped: one JSON object, in the field names that the real service
uses, both spellings of the two it has two of. Unwrapped: the data, and if asked the rest as
headers.

Source: https://cloud.google.com/pubsub/docs/push,
https://cloud.google.com/pubsub/docs/payload-unwrapping
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.errors import Unauthenticated
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.pubsub.delivery import Delivery
from sublet.local.pubsub.resources import Push, Subscription

USER_AGENT: Final = "CloudPubSub-Google"
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_RESERVED_HEADERS: Final = {
    "authorization",
    "connection",
    "content-length",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
}
"""A publisher does not get to say who is calling, or where the body ends."""


def content_of(subscription: Subscription, push: Push, delivery: Delivery) -> bytes:
    return _wrapped(subscription, delivery) if push.wrapped else delivery.message.data


def headers_of(subscription: Subscription, push: Push, delivery: Delivery) -> dict[str, str]:
    headers = {"User-Agent": USER_AGENT}
    if push.wrapped:
        headers["Content-Type"] = "application/json"
    elif push.write_metadata:
        headers.update(_metadata(subscription, delivery))
    return headers


def authorization_of(iam: Iam, id_tokens: IdTokens, push: Push) -> dict[str, str]:
    """
    The header that says who sends a push, if the push is to say so.

    Raises:
        Unauthenticated: the account is gone or disabled, so nothing may be sent in its name.

    Source: https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
    """
    if push.oidc is None:
        return {}
    email = push.oidc.email
    try:
        iam.service_accounts.check_usable(email)
    except Unauthenticated as error:
        raise Unauthenticated(f"no ID token for {email}: {error}") from None
    unique_id = iam.service_accounts.get(email).unique_id
    token = id_tokens.current(email, unique_id, push.oidc.audience or push.endpoint)
    return {"Authorization": f"Bearer {token}"}


def _wrapped(subscription: Subscription, delivery: Delivery) -> bytes:
    message = delivery.message
    published_at = rfc3339(message.published_at)
    wire: dict[str, Any] = {
        "data": base64.b64encode(message.data).decode(),
        "attributes": message.attributes,
        "messageId": str(message.id),
        "message_id": str(message.id),
        "publishTime": published_at,
        "publish_time": published_at,
    }
    if message.ordering_key:
        wire["orderingKey"] = message.ordering_key
    body: dict[str, Any] = {"message": wire, "subscription": subscription.name}
    if delivery.attempt:
        body["deliveryAttempt"] = delivery.attempt
    return json.dumps(body).encode()


def _metadata(subscription: Subscription, delivery: Delivery) -> Iterator[tuple[str, str]]:
    message = delivery.message
    for name, value in message.attributes.items():
        is_header = _HEADER_NAME.fullmatch(name) and _HEADER_VALUE.fullmatch(value)
        if is_header and name.lower() not in _RESERVED_HEADERS:
            yield name, value
    yield "x-goog-pubsub-subscription-name", subscription.name
    yield "x-goog-pubsub-message-id", str(message.id)
    yield "x-goog-pubsub-publish-time", rfc3339(message.published_at)
    if _HEADER_VALUE.fullmatch(message.ordering_key):
        yield "x-goog-pubsub-ordering-key", message.ordering_key
    if delivery.attempt:
        yield "x-goog-pubsub-delivery-attempt", str(delivery.attempt)
