"""
Revocation: when a training is over, its lease is driven to a proved end. The proof may take more
than one try; each that does not succeed asks for the event again, and whatever events miss, the
sweep does.
"""

from datetime import datetime

from sublet.errors import TryAgain
from sublet.events import TrainingFinished
from sublet.leases import Lease, LeaseState
from sublet.names import LeaseName
from sublet.ports import LeaseBroker


class Revocation:
    def __init__(self, broker: LeaseBroker) -> None:
        self._broker = broker

    def handle(self, fact: TrainingFinished) -> None:
        """
        Raises:
            TryAgain: the last token is not refused yet.
        """
        if fact.lease is None:
            return
        lease = self.attempt(fact.lease, because=f"the training is {fact.state}")
        if lease.state is LeaseState.REVOKING:
            answers = lease.last_probe.answers if lease.last_probe else "not tried yet"
            raise TryAgain(f"{fact.lease}: the last token is not refused yet ({answers})")

    def attempt(
        self, name: LeaseName, *, because: str, silent_since: datetime | None = None
    ) -> Lease:
        """
        End the lease if it lives, and try once to prove its end; the state says what came of it.

        Raises:
            Conflict: a holder has been heard of, or asked for, since `silent_since`.
        """
        return self._broker.revoke(name, because=because, silent_since=silent_since)
