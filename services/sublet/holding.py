"""
The holder's side of a lease for verification: a token that stays fresh, bytes that are counted, an
end.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sublet.handover import AccessToken, Assignment, Ending, Heartbeat
from sublet.leases import Lease
from sublet.names import Generation, LeaseName
from sublet.ports import Clock, LeaseBroker


class Holding:
    """
    A claimed lease. `token` renews through the broker when less than half of its life is left.
    """

    def __init__(self, broker: LeaseBroker, clock: Clock, assignment: Assignment) -> None:
        self._broker = broker
        self._clock = clock
        self._assignment = assignment
        self._token = assignment.token
        self._half_life: timedelta = (assignment.token.expires_at - clock.now()) / 2
        self.bytes_read = 0
        self.found: Generation | None = None

    @property
    def lease(self) -> LeaseName:
        return self._assignment.lease

    def token(self) -> AccessToken:
        if self._token.expires_at - self._clock.now() < self._half_life:
            renewal = self._broker.renew(
                self.lease,
                Heartbeat(
                    epoch=self._assignment.epoch, bytes_read=self.bytes_read, wants_token=True
                ),
            )
            self._token = renewal.token or self._token
        return self._token

    def end(self, *, is_success: bool) -> Lease:
        ending = Ending(
            epoch=self._assignment.epoch,
            bytes_read=self.bytes_read,
            is_success=is_success,
            found=self.found,
        )
        return self._broker.finish(self.lease, ending)


@contextmanager
def held(broker: LeaseBroker, clock: Clock, assignment: Assignment) -> Iterator[Holding]:
    """
    Hand a lease back whatever happens in between.

    Its end is tried at once; if it cannot be proved then, the sweep goes on with it.
    """
    holding = Holding(broker, clock, assignment)
    is_success = False
    try:
        yield holding
        is_success = True
    finally:
        holding.end(is_success=is_success)
