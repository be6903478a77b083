"""
Delivery: who gets which message, until when, and what follows if it is not acknowledged. At least
once always; an acknowledgement that was answered is durable; a lease is not, so that after a
restart what was leased is delivered again. Failures are counted in the database.

An ack id names the run of the process, the message and the lease: one of an older lease can be told
apart, and does nothing.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound
from sublet.local.database import Database
from sublet.local.pubsub.catalogue import Catalogue
from sublet.local.pubsub.listeners import Listeners
from sublet.local.pubsub.messages import Message, Messages, Outgoing, Pending
from sublet.local.pubsub.misdelivery import Misdelivery
from sublet.local.pubsub.names import SubscriptionName, TopicName, id_of, project_of
from sublet.local.pubsub.queues import Budget, Leaseholder, Queue
from sublet.local.pubsub.resources import Subscription, Topic
from sublet.ports import Clock

PAGE: Final = 1000
_ACK_ID = re.compile(r"[0-9a-f]{1,16}-(?P<message>[0-9a-f]{1,16})-[0-9a-f]{1,16}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    ack_id: str
    message: Message
    size_bytes: int
    attempt: int
    """Which delivery of this message it is, from 1; 0 without a dead letter policy."""


class StaleAckIds(FailedPrecondition):
    """
    Raised where delivery is exactly once and some ack ids are of leases that are over. Nothing was
    done: `outcomes` tells for each id whether it is dead or wants to be sent again.
    """

    def __init__(self, stale: Iterable[str], others: Iterable[str]) -> None:
        super().__init__("Some acknowledgement ids in the request were invalid or have expired.")
        self.outcomes = {
            **dict.fromkeys(others, "TRANSIENT_FAILURE_OTHER_ACK_IDS_INVALID"),
            **dict.fromkeys(stale, "PERMANENT_FAILURE_INVALID_ACK_ID"),
        }


class Deliveries:
    """
    Args:
        dead_letter: publishes to a dead letter topic; raises NotFound if that is gone.
    """

    def __init__(
        self,
        database: Database,
        catalogue: Catalogue,
        messages: Messages,
        clock: Clock,
        *,
        dead_letter: Callable[[TopicName, Sequence[Outgoing]], object],
        misdelivery: Misdelivery,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._messages = messages
        self._clock = clock
        self._dead_letter = dead_letter
        self._misdelivery = misdelivery
        self._queues: dict[SubscriptionName, Queue] = {}
        self._run = messages.count_up("run")
        self._lease_numbers = itertools.count(1)
        self._planned: datetime | None = None
        self.arrivals: defaultdict[SubscriptionName, Listeners] = defaultdict(Listeners)
        """Called when a subscription may have something to lease, or was changed or deleted."""
        self.sooner = Listeners()
        """Called when something is due before what `next_due` last said."""
        self.last_used: dict[SubscriptionName, datetime] = {}
        """When somebody last asked for messages."""

    # --- consumers --------------------------------------------------------------------------------

    def lease(
        self,
        name: SubscriptionName,
        budget: Budget,
        *,
        ack_deadline_s: int | None = None,
        holder: Leaseholder | None = None,
    ) -> list[Delivery]:
        """
        Hand out what is ready, oldest first, each under a lease of its own.

        Args:
            ack_deadline_s: how long the leases last; without it, as the subscription says.
            holder: told of each lease's end.

        Raises:
            NotFound: there is no such subscription (any more).
            FailedPrecondition: it is detached from its topic.
        """
        subscription, queue, now = self._open(name)
        self.last_used[name] = now
        if subscription.detached:
            raise FailedPrecondition(f"Subscription {name} is detached from its topic.")
        if queue.has_more and queue.has_room:
            page = self._messages.backlog(name, after=queue.loaded_to, limit=PAGE)
            queue.has_more = len(page) == PAGE
            queue.feed(page, now)
        taken = queue.take(budget, now)
        messages = self._messages.read(pending.id for pending in taken) if taken else {}
        deadline = now + timedelta(seconds=ack_deadline_s or subscription.ack_deadline_s)
        deliveries = []
        for pending in taken:
            ack_id = f"{self._run:x}-{pending.id:x}-{next(self._lease_numbers):x}"
            queue.lease(pending, ack_id, deadline, holder)
            deliveries.append(
                Delivery(
                    ack_id=ack_id,
                    message=messages[pending.id],
                    size_bytes=pending.size_bytes,
                    attempt=pending.failures + 1 if subscription.dead_letter_policy else 0,
                )
            )
        self._plan(queue)
        return deliveries

    def acknowledge(
        self, name: SubscriptionName, ack_ids: Sequence[str], *, strict: bool = True
    ) -> list[str]:
        """
        Settle messages for good and return the ack ids that had no effect, being stale.

        Args:
            strict: where delivery is exactly once, refuse all of them if one is stale.

        Raises:
            StaleAckIds: by `strict`.
            InvalidRequest: something is not an ack id at all.
        """
        subscription, queue, now = self._open(name)
        current, stale = self._current(subscription, queue, ack_ids, strict=strict)
        done = list(current.values())
        if done:
            once_more = self._misdelivery.once_more(name, done)
            settled = [pending for pending in done if pending not in once_more]
            with self._database.transaction():
                self._acknowledge_rows(subscription, [pending.id for pending in settled])
            for pending in settled:
                queue.settle(pending, now)
            for pending in once_more:
                queue.give_back(pending, now, now)
            self._notify(name, queue)
        return stale

    def modify_deadlines(
        self, name: SubscriptionName, seconds: Mapping[str, int], *, strict: bool = True
    ) -> list[str]:
        """
        Let leases end so many seconds from now; 0 gives the message back at once and counts as a
        failed delivery. Returns and raises as `acknowledge` does.
        """
        for value in seconds.values():
            if not 0 <= value <= 600:
                raise InvalidRequest(f"got an ack deadline of {value} s; expected 0 to 600")
        subscription, queue, now = self._open(name)
        current, stale = self._current(subscription, queue, list(seconds), strict=strict)
        failed = []
        for ack_id, pending in current.items():
            if pending.deadline is None:
                continue  # the lease is over; it may be acknowledged still, but not revived
            if seconds[ack_id] == 0:
                failed.append(pending)
            else:
                queue.move_deadline(pending, now + timedelta(seconds=seconds[ack_id]))
        self._fail(subscription, queue, failed, now)
        for pending in failed:
            pending.ack_id = ""  # who gave it back has no more say in it
        self._plan(queue)
        return stale

    # --- changes ----------------------------------------------------------------------------------

    def expect(self, name: SubscriptionName) -> None:
        """Say that the backlog has grown."""
        if queue := self._queues.get(name):
            queue.has_more = True
        self.arrivals[name].notify()

    def forget(self, name: SubscriptionName) -> None:
        """Say that the backlog was replaced, or the subscription deleted: every lease ends."""
        if queue := self._queues.pop(name, None):
            queue.close()
        self.last_used.pop(name, None)
        self.arrivals[name].notify()

    def drop_older(self, subscription: Subscription, horizon: datetime) -> bool:
        """Let go of what was published at an instant or before, and say whether there was any."""
        if not self._messages.release_older(subscription, horizon):
            return False
        if queue := self._queues.get(subscription.name):
            for pending in queue.published_by(horizon):
                queue.settle(pending, self._clock.now())
        return True

    # --- time -------------------------------------------------------------------------------------

    def next_due(self) -> datetime | None:
        """When the next lease or back-off may end."""
        dues = (queue.next_due for queue in self._queues.values())
        self._planned = min((due for due in dues if due), default=None)
        return self._planned

    def tick(self) -> None:
        """Take back the leases that are over, and make ready what has waited long enough."""
        now = self._clock.now()
        for name, queue in list(self._queues.items()):
            if queue.next_due and queue.next_due <= now:
                try:
                    self._open(name)
                except NotFound:
                    self.forget(name)

    # --- inside -----------------------------------------------------------------------------------

    def _open(self, name: SubscriptionName) -> tuple[Subscription, Queue, datetime]:
        """A subscription and its queue as they are now, with nothing overdue in it."""
        subscription = self._catalogue.get(Subscription, name)
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = Queue(ordered=subscription.ordered)
        now = self._clock.now()
        self._fail(subscription, queue, queue.expired(now), now)
        if queue.ripen(now):
            self._notify(name, queue)
        return subscription, queue, now

    def _current(
        self, subscription: Subscription, queue: Queue, ack_ids: Sequence[str], *, strict: bool
    ) -> tuple[dict[str, Pending], list[str]]:
        """
        Sort ack ids into those of the latest lease of their message, and the stale ones. Exactly
        once, that lease must still run.
        """
        current: dict[str, Pending] = {}
        stale: list[str] = []
        for ack_id in ack_ids:
            parts = _ACK_ID.fullmatch(ack_id)
            if parts is None:
                raise InvalidRequest(
                    f"You have passed an invalid ack ID to the service (ack_id={ack_id[:64]})."
                )
            pending = queue.find(int(parts["message"], 16))
            if (
                pending is None
                or pending.ack_id != ack_id
                or (subscription.exactly_once and pending.deadline is None)
            ):
                stale.append(ack_id)
            else:
                current[ack_id] = pending
        if stale and strict and subscription.exactly_once:
            raise StaleAckIds(stale, current)
        return current, stale

    def _fail(
        self, subscription: Subscription, queue: Queue, failed: list[Pending], now: datetime
    ) -> None:
        """Count a failed delivery of each: to be delivered again later, or dead-lettered."""
        if not failed:
            return
        dead: list[Pending] = []
        again: list[tuple[Pending, int, datetime]] = []
        with self._database.transaction():
            for pending in failed:
                failures = pending.failures + 1
                if self._bury(subscription, pending, failures):
                    dead.append(pending)
                else:
                    again.append((pending, failures, now + subscription.backoff(failures)))
            self._messages.record_failures(subscription.name, again)
        for pending in dead:
            queue.settle(pending, now)
        for pending, failures, available_at in again:
            pending.failures = failures
            queue.give_back(pending, available_at, now)
        self._plan(queue)
        self._notify(subscription.name, queue)

    def _bury(self, subscription: Subscription, pending: Pending, failures: int) -> bool:
        """Move a message to the dead letter topic if it has failed often enough."""
        policy = subscription.dead_letter_policy
        if policy is None or failures < policy.max_delivery_attempts:
            return False
        message = self._messages.read([pending.id])[pending.id]
        published_at = message.published_at.isoformat(timespec="milliseconds")
        attributes = {
            **message.attributes,
            "CloudPubSubDeadLetterSourceDeliveryCount": str(failures),
            "CloudPubSubDeadLetterSourceSubscription": id_of(subscription.name),
            "CloudPubSubDeadLetterSourceSubscriptionProject": id_of(project_of(subscription.name)),
            "CloudPubSubDeadLetterSourceTopicPublishTime": published_at,
        }
        letter = Outgoing(
            data=message.data, attributes=attributes, ordering_key=message.ordering_key
        )
        try:
            self._dead_letter(policy.topic, [letter])
        except NotFound:
            return False  # as the real service does, keep delivering it until it can be moved
        self._acknowledge_rows(subscription, [pending.id])
        return True

    def _acknowledge_rows(self, subscription: Subscription, ids: list[int]) -> None:
        retain = subscription.retain_acked_messages
        self._messages.acknowledge(subscription.name, ids, retain=retain)
        if not retain and not _retains(self._catalogue.find(Topic, subscription.topic)):
            self._messages.delete_unheld(ids)

    def _notify(self, name: SubscriptionName, queue: Queue) -> None:
        if queue.is_ready:
            self.arrivals[name].notify()

    def _plan(self, queue: Queue) -> None:
        due = queue.next_due
        if due is not None and (self._planned is None or due < self._planned):
            self._planned = due
            self.sooner.notify()


def _retains(topic: Topic | None) -> bool:
    return topic is not None and topic.message_retention is not None
