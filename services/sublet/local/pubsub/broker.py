"""
The local Pub/Sub: its state and its rules, synchronous, with no I/O but the database. Edges (gRPC,
push) stand on it, and the rest of the local cloud calls it directly, as the owner, on the event
loop's thread.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.database import Database
from sublet.local.faults import Faults
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.oidc import IdTokens
from sublet.local.pubsub.catalogue import Catalogue
from sublet.local.pubsub.delivery import Deliveries
from sublet.local.pubsub.filters import Everything, parse_filter
from sublet.local.pubsub.listeners import Listeners
from sublet.local.pubsub.messages import Messages, Outgoing, verify_outgoing
from sublet.local.pubsub.misdelivery import Misdelivery
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
    verify_subscription,
    verify_topic,
)
from sublet.local.pubsub.seeking import Seeking, tidy
from sublet.names import Email
from sublet.ports import Clock

SWEEP_INTERVAL: Final = timedelta(minutes=1)

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pubsub_activity (
    subscription TEXT PRIMARY KEY,
    active_at    REAL NOT NULL
) STRICT;
"""


class PubSub:
    def __init__(
        self,
        database: Database,
        clock: Clock,
        iam: Iam,
        id_tokens: IdTokens,
        faults: Faults | None = None,
    ) -> None:
        self._database = database
        self._messages = Messages(database)
        database.create_tables(SCHEMA)
        self._swept_at: datetime | None = None
        self.clock = clock
        self.iam = iam
        self.id_tokens = id_tokens
        self.catalogue = Catalogue(database)
        self._misdelivery = Misdelivery(faults or Faults())
        self.deliveries = Deliveries(
            database,
            self.catalogue,
            self._messages,
            clock,
            dead_letter=self._publish,
            misdelivery=self._misdelivery,
        )
        self.seeking = Seeking(database, self.catalogue, self._messages, self.deliveries, clock)
        self.changes = Listeners()
        """Called when a subscription was made, changed or deleted."""

    # --- topics -----------------------------------------------------------------------------------

    def create_topic(self, topic: Topic) -> None:
        verify_topic(topic)
        self.catalogue.create(topic)

    def update_topic(self, topic: Topic) -> None:
        verify_topic(topic)
        with self._database.transaction():
            self.catalogue.get(Topic, topic.name)
            self.catalogue.replace(topic)
            tidy(self.catalogue, self._messages, topic.name)

    def delete_topic(self, name: TopicName) -> None:
        """Delete the topic; its subscriptions keep what they have and get nothing more."""
        with self._database.transaction():
            self.catalogue.get(Topic, name)
            for subscription in self.catalogue.of_topic(Subscription, name):
                self.catalogue.replace(replace(subscription, topic=DELETED_TOPIC))
            for snapshot in self.catalogue.of_topic(Snapshot, name):
                self.catalogue.replace(replace(snapshot, topic=DELETED_TOPIC))
            self._messages.orphan(name)
            self._delete(name)

    def publish(self, topic: str, messages: Sequence[Outgoing]) -> list[str]:
        """
        Keep messages for every subscription of the topic whose filter they pass; return their ids.

        Inside a transaction of the caller's, they are published when it commits, or not at all.

        Raises:
            NotFound: there is no such topic.
            InvalidRequest: a message is empty or out of bounds.
        """
        verify_outgoing(messages)
        return self._publish(parse_topic(topic), messages)

    def _publish(self, name: TopicName, outgoing: Sequence[Outgoing]) -> list[str]:
        with self._database.transaction():
            topic = self.catalogue.get(Topic, name)
            subscriptions = [
                s for s in self.catalogue.of_topic(Subscription, name) if not s.detached
            ]
            ids = self._messages.add(name, outgoing, self.clock.now())
            held: set[int] = set()
            for subscription in subscriptions:
                lets_pass = parse_filter(subscription.filter)
                passing = (
                    ids
                    if isinstance(lets_pass, Everything)
                    else [
                        message_id
                        for message_id, message in zip(ids, outgoing, strict=True)
                        if lets_pass.matches(message.attributes)
                    ]
                )
                self._messages.hold(subscription.name, passing)
                self._messages.postpone(subscription.name, self._waits(subscription.name, passing))
                held.update(passing)
            for snapshot in self.catalogue.of_topic(Snapshot, name):
                self._messages.hold(snapshot.name, ids)
                held.update(ids)
            if topic.message_retention is None:
                self._messages.delete_unheld(set(ids) - held)
            for subscription in subscriptions:
                self._database.after_commit(partial(self.deliveries.expect, subscription.name))
        return [str(message_id) for message_id in ids]

    def _waits(self, name: SubscriptionName, ids: list[int]) -> dict[int, datetime]:
        now = self.clock.now()
        return {id_: now + wait for id_, wait in self._misdelivery.waits(name, ids).items()}

    # --- subscriptions ----------------------------------------------------------------------------

    def create_subscription(self, subscription: Subscription) -> None:
        """
        Raises:
            NotFound: there is no such topic.
            AlreadyExists: the name is taken.
            InvalidRequest: a field is out of bounds.
        """
        verify_subscription(subscription)
        with self._database.transaction():
            self.catalogue.get(Topic, subscription.topic)
            self.catalogue.create(subscription)
            self._mark_active([subscription.name], self.clock.now())
            self._database.after_commit(self.changes.notify)

    def update_subscription(self, subscription: Subscription) -> None:
        """
        Raises:
            InvalidRequest: a field is out of bounds, or one that cannot be changed.
        """
        verify_subscription(subscription)
        with self._database.transaction():
            current = self.catalogue.get(Subscription, subscription.name)
            for fixed in ("topic", "filter", "ordered", "detached"):
                if getattr(current, fixed) != getattr(subscription, fixed):
                    raise InvalidRequest(f"{fixed} of a subscription cannot be changed")
            self.catalogue.replace(subscription)
            self._database.after_commit(self.deliveries.arrivals[subscription.name].notify)
            self._database.after_commit(self.changes.notify)

    def delete_subscription(self, name: SubscriptionName) -> None:
        with self._database.transaction():
            subscription = self.catalogue.get(Subscription, name)
            self._delete(name)
            self._messages.release(name)
            self._database.execute("DELETE FROM pubsub_activity WHERE subscription = ?", name)
            tidy(self.catalogue, self._messages, subscription.topic)
            self._database.after_commit(partial(self.deliveries.forget, name))
            self._database.after_commit(self.changes.notify)

    def detach_subscription(self, name: SubscriptionName) -> None:
        """Drop its backlog and let it receive nothing more; it remains, as a name."""
        with self._database.transaction():
            subscription = self.catalogue.get(Subscription, name)
            self.catalogue.replace(replace(subscription, detached=True))
            self._messages.release(name)
            tidy(self.catalogue, self._messages, subscription.topic)
            self._database.after_commit(partial(self.deliveries.forget, name))
            self._database.after_commit(self.changes.notify)

    def verify_pulls(self, name: SubscriptionName) -> None:
        """
        Raises:
            NotFound: there is no such subscription.
            FailedPrecondition: it pushes, so nobody else may take messages from it.
        """
        if self.catalogue.get(Subscription, name).push:
            raise FailedPrecondition(f"Subscription {name} is a push subscription; it has no pull.")

    # --- what `terraform apply` would do ----------------------------------------------------------

    def ensure_topic(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        message_retention: timedelta | None = None,
    ) -> Topic:
        topic = Topic(
            name=parse_topic(name), labels=labels or {}, message_retention=message_retention
        )
        with self._database.transaction():
            if self.catalogue.find(Topic, topic.name) is None:
                self.create_topic(topic)
            else:
                self.update_topic(topic)
        return topic

    def ensure_subscription(  # noqa: PLR0913  the fields of a subscription
        self,
        name: str,
        topic: str,
        *,
        push_endpoint: str = "",
        oidc_email: str = "",
        oidc_audience: str = "",
        ack_deadline_s: int = 10,
        retry: tuple[float, float] | None = None,
        dead_letter_topic: str = "",
        max_delivery_attempts: int = 5,
        filter: str = "",
        ordered: bool = False,
        exactly_once: bool = False,
        labels: dict[str, str] | None = None,
    ) -> Subscription:
        """
        As `ensure`, by the fields that most subscriptions are made of.

        Args:
            retry: the minimum and maximum back-off in seconds.
        """
        oidc = OidcToken(email=Email(oidc_email), audience=oidc_audience) if oidc_email else None
        wanted = Subscription(
            name=parse_subscription(name),
            topic=parse_topic(topic),
            push=Push(endpoint=push_endpoint, oidc=oidc) if push_endpoint else None,
            ack_deadline_s=ack_deadline_s,
            labels=labels or {},
            ordered=ordered,
            filter=filter,
            dead_letter_policy=DeadLetterPolicy(
                topic=parse_topic(dead_letter_topic), max_delivery_attempts=max_delivery_attempts
            )
            if dead_letter_topic
            else None,
            retry_policy=RetryPolicy(
                minimum_backoff=timedelta(seconds=retry[0]),
                maximum_backoff=timedelta(seconds=retry[1]),
            )
            if retry
            else None,
            exactly_once=exactly_once,
        )
        self.ensure(wanted)
        return wanted

    def ensure(self, wanted: Subscription) -> None:
        """
        Make the subscription what is asked for. Where its topic, filter or ordering differ, which
        cannot be changed, it is deleted and made again, with an empty backlog.
        """
        with self._database.transaction():
            current = self.catalogue.find(Subscription, wanted.name)
            fixed = ("topic", "filter", "ordered", "detached")
            if current and any(getattr(current, f) != getattr(wanted, f) for f in fixed):
                self.delete_subscription(wanted.name)
                current = None
            if current is None:
                self.create_subscription(wanted)
            elif current != wanted:
                self.update_subscription(wanted)

    # --- time -------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Make every timer look again: the clock was moved."""
        self.deliveries.sooner.notify()

    def next_due(self) -> datetime:
        """When `tick` has something to do, at the latest."""
        sweep = self._swept_at + SWEEP_INTERVAL if self._swept_at else self.clock.now()
        delivery = self.deliveries.next_due()
        return min(sweep, delivery) if delivery else sweep

    def tick(self) -> None:
        """Do what is due: end leases and back-offs, and drop what is too old."""
        now = self.clock.now()
        if self._swept_at is None or now >= self._swept_at + SWEEP_INTERVAL or now < self._swept_at:
            self._sweep(now)
            self._swept_at = now
        self.deliveries.tick()

    def _sweep(self, now: datetime) -> None:
        used = [name for name, wakers in self.deliveries.arrivals.items() if wakers]
        with self._database.transaction():
            for name, at in self.deliveries.last_used.items():
                self._mark_active([name], at)
            self._mark_active(used, now)
            for subscription in self.catalogue.all(Subscription):
                horizon = now - subscription.message_retention
                if self.deliveries.drop_older(subscription, horizon):
                    tidy(self.catalogue, self._messages, subscription.topic)
                if self._is_abandoned(subscription, now):
                    self.delete_subscription(subscription.name)
            for snapshot in self.catalogue.all(Snapshot):
                if snapshot.expires_at <= now:
                    self.seeking.delete_snapshot(snapshot.name)
            for topic in self.catalogue.all(Topic):
                if topic.message_retention is not None:
                    self._messages.delete_all_unheld(topic.name, now - topic.message_retention)

    def _is_abandoned(self, subscription: Subscription, now: datetime) -> bool:
        if subscription.expires_after is None:
            return False
        row = self._database.row(
            "SELECT active_at FROM pubsub_activity WHERE subscription = ?", subscription.name
        )
        return (
            row is not None and row["active_at"] <= (now - subscription.expires_after).timestamp()
        )

    def _mark_active(self, names: Iterable[SubscriptionName], at: datetime) -> None:
        self._database.execute_many(
            "INSERT OR REPLACE INTO pubsub_activity VALUES (?, ?)",
            [(name, at.timestamp()) for name in names],
        )

    def _delete(self, name: str) -> None:
        self.catalogue.delete(name)
        self.iam.policies.delete(name)
