"""
What may go wrong, by name, and how often in one seed: each seed turns on some of them (swarm
testing), so that none hides behind the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from simulation.draws import Draws


class CallFault(StrEnum):
    """What may become of one call of a port; one draw picks at most one."""

    CRASH_BEFORE = "the caller dies before the call has its effect"
    CRASH_AFTER = "the caller dies after it"
    LOST_REPLY = "the call has its effect, and its caller is told to try again"
    BUSY = "the call has no effect, and its caller is told to try again"
    STALL_BEFORE = "the caller stands still for minutes, past the ack deadline, before the effect"
    STALL_AFTER = "the caller stands still for minutes after it"


class MessageFault(StrEnum):
    DROPPED = "a message is lost"
    TWICE = "a message is delivered twice"
    LATE = "a message is late, and overtaken"


class TrainerFault(StrEnum):
    NEVER_STARTS = "an execution fails before its container runs"
    KILLED = "a container is killed, and tried again by its execution"
    LOST = "a container is taken for dead, and tried again while it runs on"
    TIMES_OUT = "an execution comes to its time limit, and is not tried again"
    HANGS = "a container runs on and says nothing more"
    DAWDLES = "a container trains on beyond the end of its lease"
    LINGERS = "a container goes on after its work is done"


class CloudFault(StrEnum):
    SLOW_SWITCH = "enabling and disabling an account takes minutes to be felt"


class OwnerAct(StrEnum):
    """Nothing goes wrong here, but it comes at a bad moment."""

    OVERWRITES = "an object is overwritten"
    REMOVES = "an object is removed"
    CANCELS = "a job is cancelled, twice at once"
    RESUMES = "a job that failed or was cancelled is asked for again, twice at once"
    BAD_ROWS = "an object has rows that nobody can train on"
    TURNS_OFF = "a watch is turned off, and on again"


Fault = CallFault | MessageFault | TrainerFault | CloudFault | OwnerAct

FAULTS: tuple[Fault, ...] = (
    *CallFault,
    *MessageFault,
    *TrainerFault,
    *CloudFault,
    *OwnerAct,
)
_CALL_RATES = (0.0, 0.0, 0.001, 0.004, 0.012)
_STALL_RATES = (0.0, 0.002, 0.01, 0.03)
STALLS = (CallFault.STALL_BEFORE, CallFault.STALL_AFTER)
_SWITCH_RATES = (0.0, 0.0, 0.3, 0.7)
_OTHER_RATES = (0.0, 0.0, 0.1, 0.3)


def _rates_of(fault: Fault) -> tuple[float, ...]:
    if fault in STALLS:
        return _STALL_RATES
    if isinstance(fault, CallFault):
        return _CALL_RATES
    return _SWITCH_RATES if isinstance(fault, CloudFault) else _OTHER_RATES


@dataclass(frozen=True)
class Swarm:
    """How often each fault strikes in one seed, while there is chaos."""

    rates: Mapping[Fault, float]

    @classmethod
    def of(cls, draws: Draws) -> "Swarm":
        def rate(fault: Fault) -> float:
            return draws.one_of(_rates_of(fault), "swarm", fault.name)

        return cls({fault: rate(fault) for fault in FAULTS})

    def call_thresholds(self) -> list[tuple[int, CallFault]]:
        """Faults of calls as slices of what 64 bits can be, for one draw to fall into."""
        edge, thresholds = 0, []
        for fault in CallFault:
            edge += int(self.rates[fault] * 2**64)
            if self.rates[fault]:
                thresholds.append((edge, fault))
        return thresholds
