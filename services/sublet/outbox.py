"""
What was committed gets announced. A fact is committed with the state that it announces and
published after; whatever a crash leaves between the two, the sweep publishes.
"""

from collections.abc import Sequence
from datetime import timedelta

from sublet.ports import Clock, OutboxEntry, Publisher, Registry


class Outbox:
    def __init__(self, registry: Registry, publisher: Publisher, clock: Clock) -> None:
        self._registry = registry
        self._publisher = publisher
        self._clock = clock

    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        """
        Publish each, then forget it; a crash between the two publishes it again, never loses it.

        Raises:
            TryAgain: the broker is out of reach; the entries stay.
        """
        for entry in entries:
            self._publisher.publish(entry)
            self._registry.mark_published([entry])

    def flush(self, *, older_than: timedelta) -> int:
        """Publish what has been left behind for that long, and say how much it was."""
        entries = self._registry.outbox(committed_before=self._clock.now() - older_than)
        self.publish(entries)
        return len(entries)
