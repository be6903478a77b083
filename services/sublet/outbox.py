"""
What was committed gets announced. A fact is committed with the state that it announces and
published after; whatever a crash leaves between the two, the sweep publishes.
"""

from collections.abc import Sequence

from sublet.events import (
    DatasetRefused,
    DatasetRegistered,
    Fact,
    ObjectFound,
    TrainingFinished,
    TrainingRequested,
)
from sublet.names import AccountName
from sublet.ports import OutboxEntry, Publisher, Registry


class Outbox:
    def __init__(self, registry: Registry, publisher: Publisher) -> None:
        self._registry = registry
        self._publisher = publisher

    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        """
        Publish each, then forget it; a crash between the two publishes it again, never loses it.

        Raises:
            TryAgain: the broker is out of reach; the entries stay.
        """
        for entry in entries:
            self.publish_one(entry)

    def publish_one(self, entry: OutboxEntry) -> bool:
        self._publisher.publish(entry)
        self._registry.mark_published([entry])
        return True


def account_of(fact: Fact) -> AccountName:
    """Whom a fact is about."""
    match fact:
        case ObjectFound():
            return fact.account
        case DatasetRegistered() | DatasetRefused():
            return fact.dataset.account
        case TrainingRequested() | TrainingFinished():
            return fact.job.account
