"""
A lease while we hold it: heartbeats from a thread of their own, the newest token for whoever needs
one, the count of bytes read, and the news that it is lost. Losing it takes no cooperation to
notice: from that moment every request for a token and every check() raises, in every thread.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import Final, Self

from sublet.clock import clock_of
from sublet.handover import AccessToken, Assignment, Ending, Heartbeat, TrainedAdapter
from sublet.jobs import Progress
from sublet_trainer.leased.broker import TIMEOUT_S, Broker
from sublet_trainer.logs import INFO, WARNING, log
from sublet_trainer.stops import BrokerSilent, Stop

FINISH_PATIENCE_S: Final = 60.0
"""An ending is offered this long even if the token dies sooner: giving back needs no token."""
CLOSING_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Held:
    """A token, with the moments of its half life and death by our own clock (monotonic seconds)."""

    token: AccessToken
    wanes_at: float
    dies_at: float

    @classmethod
    def now(cls, token: AccessToken) -> Self:
        life_s = (token.expires_at - clock_of().now()) / timedelta(seconds=1)
        return cls(token, monotonic() + life_s / 2, monotonic() + life_s)


class _Closing(Exception):
    """Raised inside a heartbeat that is given up because the lease is being handed back."""


class HeldLease:
    """
    Heartbeats run while it is entered as a context.

    token(), count() and check() may be called from any thread, the rest from the training thread.
    """

    def __init__(self, broker: Broker, assignment: Assignment) -> None:
        self.assignment = assignment
        self._broker = broker
        self._held = _Held.now(assignment.token)
        self._heartbeat = Heartbeat(epoch=assignment.epoch, bytes_read=0)
        self._end: Exception | None = None
        self._changing = Lock()  # over _heartbeat
        self._renewing = Lock()  # over the broker, one question at a time
        self._wake = Event()
        self._closing = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the heartbeats. One that the broker is slow to answer is left to be refused later."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSING_PATIENCE_S)

    # --- for readers and writers ------------------------------------------------------------------

    def token(self) -> str:
        """
        The newest token's secret.

        Raises:
            LeaseLost: somebody else holds the lease now, or it has ended.
            BrokerSilent: the broker has not answered for as long as the token lived.
        """
        self.check()
        return self._held.token.secret

    def check(self) -> None:
        """Raise the reason why this holder must do nothing more, if there is one."""
        if self._end:
            raise self._end

    def count(self, num_bytes: int) -> None:
        """Account for bytes of the leased object that have reached this process."""
        with self._changing:
            total = self._heartbeat.bytes_read + num_bytes
            self._heartbeat = replace(self._heartbeat, bytes_read=total)

    # --- for the run ------------------------------------------------------------------------------

    def report(self, progress: Progress) -> None:
        """Have the next heartbeats say this."""
        with self._changing:
            self._heartbeat = replace(self._heartbeat, progress=progress)

    def announce_checkpoint(self, name: str) -> None:
        """Have the next heartbeats name it, and send one at once without waiting for the answer."""
        with self._changing:
            self._heartbeat = replace(self._heartbeat, checkpoint=name)
        self._wake.set()

    def announce_results(self) -> None:
        """From now on the heartbeats say that results are being written."""
        with self._changing:
            self._heartbeat = replace(self._heartbeat, is_writing_results=True)
        self._wake.set()

    def renew(self, *, wants_token: bool = False, within_s: float = inf) -> None:
        """
        Send one heartbeat and wait for the answer, at most until the token in hand is dead.

        Raises:
            LeaseLost, BrokerSilent: as token() will from now on.
        """
        token_lives_s = max(0.0, self._held.dies_at - monotonic())
        if not self._renewing.acquire(timeout=min(within_s, token_lives_s + TIMEOUT_S)):
            raise BrokerSilent("another heartbeat has not been answered yet")
        try:
            self._renew(wants_token=wants_token, within_s=within_s)
        finally:
            self._renewing.release()

    def _renew(self, *, wants_token: bool, within_s: float) -> None:
        self.check()
        until = min(self._held.dies_at, monotonic() + within_s)
        with self._changing:
            heartbeat = replace(
                self._heartbeat, wants_token=wants_token or monotonic() >= self._held.wanes_at
            )
        try:
            renewal = self._broker.renew(heartbeat, until=until, wait=self._pause)
        except _Closing:
            raise
        except Exception as end:
            self._end = end
            raise
        if renewal.token:
            self._held = _Held.now(renewal.token)

    def finish(
        self, *, code: str = "OK", message: str = "", adapter: TrainedAdapter | None = None
    ) -> None:
        """
        Give the lease back and say how the job went: well if there is an adapter.

        Raises:
            LeaseLost, BrokerSilent: nothing about the job was recorded.
        """
        self.close()
        if isinstance(self._end, Stop):
            raise self._end
        ending = Ending(
            epoch=self._heartbeat.epoch,
            bytes_read=self._heartbeat.bytes_read,
            is_success=adapter is not None,
            code=code,
            message=message,
            progress=self._heartbeat.progress,
            adapter=adapter,
        )
        patience_ends_at = monotonic() + FINISH_PATIENCE_S
        self._broker.finish(ending, until=max(self._held.dies_at, patience_ends_at))
        log(
            INFO,
            "lease handed back",
            lease=self.assignment.lease,
            code=code,
            bytes_read=ending.bytes_read,
        )

    # --- the thread -------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self.assignment.heartbeat_every_s)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                self.renew()
            except Exception as end:  # noqa: BLE001  renew() kept it; check() raises it where it is seen
                log(WARNING, "no more heartbeats", because=type(end).__name__)
                return

    def _pause(self, pause_s: float) -> None:
        if self._closing.wait(pause_s):
            raise _Closing
