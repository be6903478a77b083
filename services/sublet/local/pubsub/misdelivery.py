"""What Pub/Sub may do to a message and mostly does not: deliver it late, out of order, or twice."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from sublet.local.faults import Fault, Faults
from sublet.local.pubsub.messages import Pending
from sublet.local.pubsub.names import SubscriptionName


class Misdelivery:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def waits(self, name: SubscriptionName, ids: Iterable[int]) -> dict[int, timedelta]:
        """Of newly published messages, those to hold back, and for how long."""
        if not self._faults.orders:
            return {}
        waits = {
            message_id: self._faults.delay(Fault.DELIVER_LATE, name)
            + self._faults.delay(Fault.REORDER, name)
            for message_id in ids
        }
        return {message_id: wait for message_id, wait in waits.items() if wait}

    def once_more(self, name: SubscriptionName, settled: Sequence[Pending]) -> list[Pending]:
        """Of acknowledged messages, those to deliver again all the same."""
        return [one for one in settled if self._faults.strikes(Fault.DELIVER_TWICE, name)]
