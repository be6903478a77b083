"""
Why a run ends without telling the broker how the job went. Anything that a user must hear of is one
of sublet.errors instead and becomes the job's status; what is here concerns only this process.

    Stop +-- LeaseElsewhere    0  at the claim: somebody else has the lease, or it is over
         +-- LeaseLost         0  later: fenced by another holder, cancelled or expired
         +-- BrokerRefused     1  the broker does not accept this identity or this request
         +-- BrokerSilent     75  no answer until the token was dead; a new attempt may do better
         +-- RankLost         75  another process of this training ended without a word
         +-- Dismissed         0  the first process of this training has ended, and said how it went
         +-- Interrupted     143  SIGTERM; a checkpoint was saved if a step had been finished

Cloud Run starts a new attempt after every exit code but 0.
"""

from threading import Event
from typing import ClassVar


class Stop(Exception):
    """The root: raised in whichever thread notices, caught in __main__."""

    exit_code: ClassVar[int] = 1


class LeaseElsewhere(Stop):
    """Raised by a claim that came second or too late; not one byte has been read."""

    exit_code = 0


class LeaseLost(Stop):
    """Raised once a renewal was refused: nothing may be read or written from here on."""

    exit_code = 0


class BrokerRefused(Stop):
    """Raised when the broker will not talk to this identity, or not about this."""

    exit_code = 1


class BrokerSilent(Stop):
    """Raised when the broker stayed unreachable until the token in hand was dead."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class RankLost(Stop):
    """Raised when another rank is gone; a checkpoint was saved if this one could make it alone."""

    exit_code = 75


class Dismissed(Stop):
    """Raised in a rank that is not the first, when that one has ended."""

    exit_code = 0


class Interrupted(Stop):
    """Raised between two pieces of work after SIGTERM; the half-done step is dropped."""

    exit_code = 143  # 128 + SIGTERM


class Interruption:
    """SIGTERM as a flag: set by the signal handler, looked at wherever work can be left."""

    def __init__(self) -> None:
        self._requested = Event()

    def request(self, *_: object) -> None:
        """Fit to be a signal handler."""
        self._requested.set()

    def check(self) -> None:
        if self._requested.is_set():
            raise Interrupted("stopped by SIGTERM")

    def wait(self, seconds: float) -> None:
        """Sleep, unless and until interrupted."""
        if self._requested.wait(seconds):
            raise Interrupted("stopped by SIGTERM")
