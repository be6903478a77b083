"""
Topics, subscriptions and snapshots as values, and the rules each must obey before it is kept. A
`verify_` function raises and changes nothing; limits are those of the real service.

Source: https://cloud.google.com/pubsub/docs/reference/rest/v1/projects.subscriptions
"""

import ipaddress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar, Final

import httpx

from sublet.errors import InvalidRequest
from sublet.local.pubsub.filters import parse_filter
from sublet.local.pubsub.names import SnapshotName, SubscriptionName, TopicName
from sublet.names import Email

ACK_DEADLINES_S: Final = range(10, 601)
MAX_RETENTION: Final = timedelta(days=31)
MIN_RETENTION: Final = timedelta(minutes=10)
_MAX_BACKOFF: Final = timedelta(seconds=600)
_MIN_EXPIRY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    collection: ClassVar = "topics"

    name: TopicName
    labels: dict[str, str] = field(default_factory=dict)
    message_retention: timedelta | None = None
    """How long published messages can be sought back to, whoever acknowledged them."""

    @property
    def topic(self) -> TopicName:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Waits between deliveries of one message: doubled each time, within bounds."""

    minimum_backoff: timedelta = timedelta(seconds=10)
    maximum_backoff: timedelta = _MAX_BACKOFF

    def backoff(self, failures: int) -> timedelta:
        doublings = min(failures - 1, 30)  # more would only overflow: the maximum is 600 s
        return min(self.minimum_backoff * (1 << doublings), self.maximum_backoff)


PUSH_RETRY: Final = RetryPolicy(
    minimum_backoff=timedelta(milliseconds=100), maximum_backoff=timedelta(seconds=60)
)
"""What push does without a policy; pull without one redelivers at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPolicy:
    topic: TopicName
    max_delivery_attempts: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcToken:
    """Who a push says it is from."""

    email: Email
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    endpoint: str
    oidc: OidcToken | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    wrapped: bool = True
    write_metadata: bool = False
    """Unwrapped only: metadata and attributes as headers of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    collection: ClassVar = "subscriptions"

    name: SubscriptionName
    topic: TopicName
    push: Push | None = None
    ack_deadline_s: int = 10
    retain_acked_messages: bool = False
    message_retention: timedelta = timedelta(days=7)
    labels: dict[str, str] = field(default_factory=dict)
    ordered: bool = False
    expires_after: timedelta | None = timedelta(days=31)
    """Without consumers for so long, it is deleted; None: never."""
    filter: str = ""
    dead_letter_policy: DeadLetterPolicy | None = None
    retry_policy: RetryPolicy | None = None
    detached: bool = False
    exactly_once: bool = False

    def backoff(self, failures: int) -> timedelta:
        """How long a message waits that was delivered, and not acknowledged, `failures` times."""
        if policy := self.retry_policy or (PUSH_RETRY if self.push else None):
            return policy.backoff(failures)
        return timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    collection: ClassVar = "snapshots"

    name: SnapshotName
    topic: TopicName
    expires_at: datetime
    labels: dict[str, str] = field(default_factory=dict)


def verify_topic(topic: Topic) -> None:
    if topic.message_retention is not None:
        _verify_between(
            "message_retention_duration", topic.message_retention, MIN_RETENTION, MAX_RETENTION
        )


def verify_subscription(subscription: Subscription) -> None:
    """
    Raises:
        InvalidRequest: names the field, what it got and what it expects.
    """
    verify_ack_deadline(subscription.ack_deadline_s)
    _verify_between(
        "message_retention_duration", subscription.message_retention, MIN_RETENTION, MAX_RETENTION
    )
    parse_filter(subscription.filter)
    if subscription.expires_after is not None:
        least = max(_MIN_EXPIRY, subscription.message_retention)
        if subscription.expires_after < least:
            raise InvalidRequest(
                f"got expiration_policy.ttl {subscription.expires_after}; expected at least {least}"
            )
    policy = subscription.dead_letter_policy
    if policy and policy.max_delivery_attempts not in range(5, 101):
        raise InvalidRequest(
            f"got dead_letter_policy.max_delivery_attempts {policy.max_delivery_attempts}; "
            "expected 5 to 100"
        )
    if retry := subscription.retry_policy:
        _verify_between("minimum_backoff", retry.minimum_backoff, timedelta(0), _MAX_BACKOFF)
        _verify_between(
            "maximum_backoff", retry.maximum_backoff, retry.minimum_backoff, _MAX_BACKOFF
        )
    if subscription.push:
        _verify_push(subscription.push)
        if subscription.exactly_once:
            raise InvalidRequest("exactly-once delivery is for pull; this subscription pushes")


def verify_ack_deadline(seconds: int) -> None:
    if seconds not in ACK_DEADLINES_S:
        raise InvalidRequest(f"got an ack deadline of {seconds} s; expected 10 to 600")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _verify_push(push: Push) -> None:
    try:
        url = httpx.URL(push.endpoint)  # the parser that will send it, so that both see one host
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"push_endpoint {push.endpoint!r}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest(f"got push_endpoint {push.endpoint!r}; expected http://HOST/PATH")
    if not is_loopback(url.host):
        raise InvalidRequest(
            f"got push_endpoint {push.endpoint!r}: this local cloud talks to loopback only"
        )


def _verify_between(what: str, got: timedelta, least: timedelta, most: timedelta) -> None:
    if not least <= got <= most:
        raise InvalidRequest(
            f"got {what} {got.total_seconds():g} s; "
            f"expected {least.total_seconds():g} to {most.total_seconds():g}"
        )
