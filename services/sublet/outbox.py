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
        Publish them, then forget them; a crash between the two publishes them again, never loses
        one.

        Raises:
            TryAgain: the broker is out of reach; the entries stay.
        """
        if entries:
            self._publisher.publish(entries)
            self._registry.mark_published(entries)

    def publish_one(self, entry: OutboxEntry) -> bool:
        self.publish([entry])
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
