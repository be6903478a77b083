"""
What one subscription has still to deliver, in memory: ready, waiting out a back-off, or leased. No
I/O, no clock and no rules about when a delivery failed; those are in delivery.py. All of it can be
rebuilt from the backlog's rows, and is, when the process starts.

Messages of one ordering key share a lane. A lane is leased out as a batch, in order, and gives
nothing more until all of that batch is settled or back; when one message comes back, those behind
it come back too, so that nobody sees them before it.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from sublet.local.pubsub.messages import Pending

CAPACITY: Final = 10_000
"""How many messages without a lease a queue keeps in memory; the rest waits in the database."""


class Leaseholder(Protocol):
    def lease_ended(self, size_bytes: int) -> None:
        """A message that it held was settled, or went back to the queue."""
        ...


@dataclass(slots=True, kw_only=True)
class Budget:
    """What a consumer has room for; a message larger than all of it passes if it comes alone."""

    messages: int
    size_bytes: int
    admits_oversized: bool = True

    def admits(self, pending: Pending) -> bool:
        return self.messages > 0 and (
            pending.size_bytes <= self.size_bytes or self.admits_oversized
        )

    def charge(self, pending: Pending) -> None:
        self.messages -= 1
        self.size_bytes -= pending.size_bytes
        self.admits_oversized = False


@dataclass(slots=True, eq=False)
class _Lane:
    """The messages of one ordering key: those `outstanding` come before all that are `waiting`."""

    key: str
    waiting: deque[Pending] = field(default_factory=deque)
    outstanding: dict[int, Pending] = field(default_factory=dict)
    queued: bool = False

    def head(self) -> Pending | None:
        while self.waiting and self.waiting[0].settled:
            self.waiting.popleft()
        return self.waiting[0] if self.waiting else None


class Queue:
    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self._known: dict[int, Pending] = {}
        self._ready: deque[Pending | _Lane] = deque()
        self._backing_off: list[tuple[datetime, int, Pending | _Lane]] = []
        self._tie = itertools.count()
        self._lanes: dict[str, _Lane] = {}
        self._leased: dict[int, Pending] = {}
        self._holders: dict[int, Leaseholder] = {}
        self._first_deadline: datetime | None = None
        self.loaded_to = 0
        """The highest message id that was read from the backlog."""
        self.has_more = True
        """Whether the backlog may have messages above it."""

    @property
    def has_room(self) -> bool:
        return len(self._known) - len(self._leased) < CAPACITY

    @property
    def is_ready(self) -> bool:
        return bool(self._ready) or self.has_more

    @property
    def next_due(self) -> datetime | None:
        """No lease ends and no back-off is over before then; something may be at that time."""
        ripe = self._backing_off[0][0] if self._backing_off else None
        deadline = self._first_deadline
        return min(ripe, deadline) if ripe and deadline else ripe or deadline

    def find(self, message_id: int) -> Pending | None:
        return self._known.get(message_id)

    # --- coming in --------------------------------------------------------------------------------

    def feed(self, page: Iterable[Pending], now: datetime) -> None:
        """Take in what was read from the backlog, in the order of ids."""
        for pending in page:
            self.loaded_to = pending.id
            self._known[pending.id] = pending
            if self._is_keyed(pending):
                lane = self._lanes.setdefault(pending.ordering_key, _Lane(pending.ordering_key))
                lane.waiting.append(pending)
                self._enqueue_lane(lane, now)
            else:
                self._enqueue(pending, pending.available_at, now)

    def ripen(self, now: datetime) -> bool:
        """Make ready what has waited long enough, and say whether there was any."""
        num_ready = len(self._ready)
        while self._backing_off and self._backing_off[0][0] <= now:
            _, _, unit = heapq.heappop(self._backing_off)
            self._ready.append(unit)
        return len(self._ready) > num_ready

    # --- going out --------------------------------------------------------------------------------

    def take(self, budget: Budget, now: datetime) -> list[Pending]:
        """Remove what fits the budget from the ready ones; the caller leases all of it at once."""
        taken: list[Pending] = []
        while self._ready:
            unit = self._ready.popleft()
            fits = (
                self._take_from_lane(unit, budget, now, taken)
                if isinstance(unit, _Lane)
                else self._take_alone(unit, budget, taken)
            )
            if not fits:
                self._ready.appendleft(unit)
                break
        return taken

    def lease(
        self, pending: Pending, ack_id: str, deadline: datetime, holder: Leaseholder | None
    ) -> None:
        pending.ack_id = ack_id
        self._leased[pending.id] = pending
        if holder is not None:
            self._holders[pending.id] = holder
        self.move_deadline(pending, deadline)

    def move_deadline(self, pending: Pending, deadline: datetime) -> None:
        pending.deadline = deadline
        if self._first_deadline is None or deadline < self._first_deadline:
            self._first_deadline = deadline

    def expired(self, now: datetime) -> list[Pending]:
        """Leases that are over, in the order of ids."""
        if self._first_deadline is None or now < self._first_deadline:
            return []
        over = [p for p in self._leased.values() if p.deadline is not None and p.deadline <= now]
        running = (p.deadline for p in self._leased.values() if p.deadline and p.deadline > now)
        # Extended leases leave a bound that is too early: that costs one look like this, no more.
        self._first_deadline = min(running, default=None)
        return sorted(over, key=lambda pending: pending.id)

    # --- coming back, or gone ---------------------------------------------------------------------

    def give_back(self, pending: Pending, available_at: datetime, now: datetime) -> None:
        """End a lease without success: the message is to be delivered again, from then on."""
        self._end_lease(pending)
        pending.available_at = available_at
        if not self._is_keyed(pending):
            self._enqueue(pending, available_at, now)
            return
        lane = self._lanes[pending.ordering_key]
        if pending.id not in lane.outstanding:
            return  # it came back with one before it
        followers = [p for p in lane.outstanding.values() if p.id > pending.id]
        for follower in sorted(followers, key=lambda p: p.id, reverse=True):
            self._end_lease(follower)
            follower.ack_id = ""  # an ack of it would let it pass the one before it
            del lane.outstanding[follower.id]
            lane.waiting.appendleft(follower)
        del lane.outstanding[pending.id]
        lane.waiting.appendleft(pending)
        self._enqueue_lane(lane, now)

    def settle(self, pending: Pending, now: datetime) -> None:
        """Forget a message: acknowledged, dead-lettered or too old."""
        self._end_lease(pending)
        pending.settled = True
        self._known.pop(pending.id, None)
        lane = self._lanes.get(pending.ordering_key) if self._is_keyed(pending) else None
        if lane is not None:
            lane.outstanding.pop(pending.id, None)
            self._enqueue_lane(lane, now)

    def published_by(self, horizon: datetime) -> list[Pending]:
        """What it knows that was published at an instant or before."""
        return [p for p in self._known.values() if p.published_at <= horizon]

    def close(self) -> None:
        """End every lease; the queue is not used again."""
        for pending in list(self._leased.values()):
            self._end_lease(pending)

    # --- inside -----------------------------------------------------------------------------------

    def _take_alone(self, pending: Pending, budget: Budget, taken: list[Pending]) -> bool:
        if pending.settled:
            return True
        if not budget.admits(pending):
            return False
        budget.charge(pending)
        taken.append(pending)
        return True

    def _take_from_lane(
        self, lane: _Lane, budget: Budget, now: datetime, taken: list[Pending]
    ) -> bool:
        """Say whether the budget sufficed for what the lane can give now."""
        while (head := lane.head()) and head.available_at <= now:
            if not budget.admits(head):
                lane.queued = not lane.outstanding
                return not lane.queued
            budget.charge(head)
            lane.waiting.popleft()
            lane.outstanding[head.id] = head
            taken.append(head)
        lane.queued = False
        self._enqueue_lane(lane, now)
        return True

    def _is_keyed(self, pending: Pending) -> bool:
        return self._ordered and bool(pending.ordering_key)

    def _end_lease(self, pending: Pending) -> None:
        pending.deadline = None
        self._leased.pop(pending.id, None)
        holder = self._holders.pop(pending.id, None)
        if holder is not None:
            holder.lease_ended(pending.size_bytes)

    def _enqueue(self, unit: Pending | _Lane, available_at: datetime, now: datetime) -> None:
        if available_at <= now:
            self._ready.append(unit)
        else:
            heapq.heappush(self._backing_off, (available_at, next(self._tie), unit))

    def _enqueue_lane(self, lane: _Lane, now: datetime) -> None:
        if lane.queued or lane.outstanding:
            return
        head = lane.head()
        if head is None:
            self._lanes.pop(lane.key, None)
            return
        lane.queued = True
        self._enqueue(lane, head.available_at, now)
