"""The queue against a model: whatever happens in whatever order, these must hold."""

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sublet.local.pubsub.messages import Pending
from sublet.local.pubsub.queues import Budget, Queue

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)


def pending(message_id, key):
    return Pending(
        id=message_id,
        ordering_key=key,
        size_bytes=1,
        published_at=START,
        failures=0,
        available_at=START,
    )


def test_what_waits_out_a_back_off_is_not_taken_along_by_the_one_before_it():
    queue, first, second = Queue(ordered=True), pending(1, "k"), pending(2, "k")
    queue.feed([first, second], START)
    for number, taken in enumerate(queue.take(Budget(messages=9, size_bytes=9), START)):
        queue.lease(taken, str(number), START + LEASE, None)
    queue.give_back(second, START + LEASE, START)
    queue.give_back(first, START, START)
    assert queue.take(Budget(messages=9, size_bytes=9), START) == [first]


class Consumer:
    """Counts what it is told of, as a stream's flow control does."""

    def __init__(self):
        self.outstanding = 0

    def lease_ended(self, size_bytes):
        assert size_bytes == 1
        self.outstanding -= 1


class QueueMachine(RuleBasedStateMachine):
    """
    The model is a set of messages that are not settled yet, and which of them are leased.
    """

    def __init__(self):
        super().__init__()
        self.queue = Queue(ordered=True)
        self.now = START
        self.published = 0
        self.num_leases = 0
        self.unsettled = {}
        self.leased = {}
        self.consumer = Consumer()

    @rule(keys=st.lists(st.sampled_from(["", "", "a", "b"]), min_size=1, max_size=5))
    def publish(self, keys):
        page = [pending(self.published + offset, key) for offset, key in enumerate(keys, start=1)]
        self.published += len(page)
        self.unsettled |= {pending.id: pending for pending in page}
        self.queue.feed(page, self.now)

    @rule(messages=st.integers(1, 4))
    def take(self, messages):
        self._expire()
        busy_keys = {p.ordering_key for p in self.leased.values()} - {""}
        budget = Budget(messages=messages, size_bytes=10**6)
        taken = self.queue.take(budget, self.now)
        assert len(taken) <= messages
        for pending in taken:
            assert pending.id in self.unsettled
            assert pending.id not in self.leased, "leased to two at once"
            assert pending.available_at <= self.now, "before its back-off was over"
            self.num_leases += 1
            self.queue.lease(pending, str(self.num_leases), self.now + LEASE, self.consumer)
            self.consumer.outstanding += 1
            self.leased[pending.id] = pending
        for key in {p.ordering_key for p in taken} - {""}:
            assert key not in busy_keys, "while something before it was out"
            got = [p.id for p in taken if p.ordering_key == key]
            waiting = sorted(i for i, p in self.unsettled.items() if p.ordering_key == key)
            assert got == waiting[: len(got)], "out of order"

    @precondition(lambda self: self.leased)
    @rule(data=st.data())
    def acknowledge(self, data):
        pending = self.leased.pop(data.draw(st.sampled_from(sorted(self.leased))))
        self.queue.settle(pending, self.now)
        del self.unsettled[pending.id]

    @precondition(lambda self: len(self.leased) < len(self.unsettled))
    @rule(data=st.data())
    def acknowledge_after_the_lease(self, data):
        waiting = sorted(set(self.unsettled) - set(self.leased))
        pending = self.unsettled.pop(data.draw(st.sampled_from(waiting)))
        self.queue.settle(pending, self.now)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), backoff_s=st.sampled_from([0, 3, 30]))
    def give_back(self, data, backoff_s):
        self._give_back(self.leased[data.draw(st.sampled_from(sorted(self.leased)))], backoff_s)

    @precondition(lambda self: self.leased)
    @rule(data=st.data(), seconds=st.integers(1, 30))
    def move_deadline(self, data, seconds):
        pending = self.leased[data.draw(st.sampled_from(sorted(self.leased)))]
        self.queue.move_deadline(pending, self.now + timedelta(seconds=seconds))

    @rule(seconds=st.sampled_from([1, 5, 11]))
    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)
        self._expire()

    @rule()
    def everything_comes_in_the_end(self):
        """However it got here, what is not settled is delivered once nothing holds it back."""
        self.now += timedelta(minutes=1)
        self._expire()
        self.take(10**6)
        assert set(self.leased) == set(self.unsettled)

    @invariant()
    def a_due_time_is_never_later_than_what_is_due(self):
        deadlines = [p.deadline for p in self.leased.values()]
        if deadlines:
            assert self.queue.next_due is not None
            assert self.queue.next_due <= min(deadlines)

    @invariant()
    def the_consumer_knows_what_it_has(self):
        assert self.consumer.outstanding == len(self.leased)

    def _expire(self):
        expired = self.queue.expired(self.now)
        due = {p.id for p in self.leased.values() if p.deadline <= self.now}
        assert [p.id for p in expired] == sorted(due)
        for pending in expired:
            if pending.id in self.leased:
                self._give_back(pending, 0)
            else:
                self.queue.give_back(pending, self.now, self.now)
        self.queue.ripen(self.now)

    def _give_back(self, pending, backoff_s):
        self.queue.give_back(pending, self.now + timedelta(seconds=backoff_s), self.now)
        key = pending.ordering_key
        for message_id, other in list(self.leased.items()):
            if message_id == pending.id or (
                key and other.ordering_key == key and message_id > pending.id
            ):
                del self.leased[message_id]


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase
