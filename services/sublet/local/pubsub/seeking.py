"""
Replay: a subscription is set back (or on) to an instant, or to what a snapshot holds. A snapshot is
a backlog without consumers: what was unacknowledged when it was made, and all that its topic got
since.

Source: https://cloud.google.com/pubsub/docs/replay-overview
"""

from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.database import Database
from sublet.local.pubsub.catalogue import Catalogue
from sublet.local.pubsub.delivery import Deliveries
from sublet.local.pubsub.filters import parse_filter
from sublet.local.pubsub.messages import FOREVER, Messages
from sublet.local.pubsub.names import DELETED_TOPIC, SnapshotName, SubscriptionName, TopicName
from sublet.local.pubsub.resources import Snapshot, Subscription, Topic
from sublet.ports import Clock

SNAPSHOT_LIFE: Final = timedelta(days=7)
"""Less the age of the oldest message it holds."""

MIN_SNAPSHOT_LIFE: Final = timedelta(hours=1)


class Seeking:
    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        messages: Messages,
        deliveries: Deliveries,
        clock: Clock,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._messages = messages
        self._deliveries = deliveries
        self._clock = clock

    def create_snapshot(
        self, name: SnapshotName, source: SubscriptionName, labels: dict[str, str]
    ) -> Snapshot:
        """
        Raises:
            FailedPrecondition: the backlog is so old that the snapshot would expire within an hour.
        """
        with self._database.transaction():
            subscription = self._catalogue.get(Subscription, source)
            now = self._clock.now()
            oldest = self._messages.oldest(source) or now
            expires_at = oldest + SNAPSHOT_LIFE
            if expires_at < now + MIN_SNAPSHOT_LIFE:
                raise FailedPrecondition(
                    f"the oldest unacknowledged message of {source} is from {oldest:%c}; "
                    "a snapshot of it would expire in less than an hour"
                )
            snapshot = Snapshot(
                name=name, topic=subscription.topic, expires_at=expires_at, labels=labels
            )
            self._catalogue.create(snapshot)
            self._messages.hold(name, self._messages.unacknowledged(source))
        return snapshot

    def update_snapshot(self, snapshot: Snapshot) -> None:
        """
        Raises:
            InvalidRequest: it would expire in the past, or live longer than a snapshot may.
        """
        now = self._clock.now()
        with self._database.transaction():
            self._catalogue.get(Snapshot, snapshot.name)
            latest = (self._messages.oldest(snapshot.name) or now) + SNAPSHOT_LIFE
            if not now < snapshot.expires_at <= latest:
                raise InvalidRequest(
                    f"got expire_time {snapshot.expires_at}; expected after {now}, up to {latest}"
                )
            self._catalogue.replace(snapshot)

    def delete_snapshot(self, name: SnapshotName) -> None:
        with self._database.transaction():
            snapshot = self._catalogue.get(Snapshot, name)
            self._catalogue.delete(name)
            self._messages.release(name)
            tidy(self._catalogue, self._messages, snapshot.topic)

    def seek_to_time(self, name: SubscriptionName, time: datetime) -> None:
        """
        Acknowledge all that was published before, and revive what is retained from then on.

        Messages published at or after it come back if the subscription retains what it
        acknowledged, or if the topic retains messages.
        """
        with self._database.transaction():
            subscription = self._catalogue.get(Subscription, name)
            self._messages.acknowledge_before(subscription, time)
            self._messages.revive_since(subscription, time)
            topic = self._catalogue.find(Topic, subscription.topic)
            if topic and topic.message_retention:
                since = max(time, self._clock.now() - topic.message_retention)
                self._hold(subscription, self._messages.not_held_since(subscription, since))
            tidy(self._catalogue, self._messages, subscription.topic)
            self._database.after_commit(partial(self._deliveries.forget, name))

    def seek_to_snapshot(self, name: SubscriptionName, snapshot_name: SnapshotName) -> None:
        """
        Make the backlog what the snapshot holds, and acknowledge everything else.

        Raises:
            InvalidRequest: the snapshot is of another topic.
        """
        with self._database.transaction():
            subscription = self._catalogue.get(Subscription, name)
            snapshot = self._catalogue.get(Snapshot, snapshot_name)
            if snapshot.topic != subscription.topic or snapshot.topic == DELETED_TOPIC:
                raise InvalidRequest(
                    f"{snapshot_name} is of {snapshot.topic}; expected {subscription.topic}"
                )
            self._messages.acknowledge_before(subscription, FOREVER)
            self._hold(subscription, self._messages.unacknowledged(snapshot_name))
            tidy(self._catalogue, self._messages, subscription.topic)
            self._database.after_commit(partial(self._deliveries.forget, name))

    def _hold(self, subscription: Subscription, ids: list[int]) -> None:
        lets_pass = parse_filter(subscription.filter)
        self._messages.hold(subscription.name, self._messages.matching(ids, lets_pass))


def tidy(catalogue: Catalogue, messages: Messages, name: TopicName) -> None:
    """Delete what nobody holds any more, unless its topic retains messages."""
    topic = catalogue.find(Topic, name)
    if topic is None or topic.message_retention is None:
        messages.delete_all_unheld(name)
