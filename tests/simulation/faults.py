"""
What may go wrong, by name, and how often in one seed: each seed turns on some of them (swarm
testing), so that none hides behind the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    SWEPT_TWICE = "a sweep is started twice at once"


class TrainerFault(StrEnum):
    NEVER_STARTS = "an execution fails before its container runs"
    KILLED = "a container is killed, and tried again by its execution"
    LOST = "a container is taken for dead, and tried again while it runs on"
    TIMES_OUT = "an execution comes to its time limit, and is not tried again"
    HANGS = "a container runs on and says nothing more"
    DAWDLES = "a container trains on beyond the end of its lease"
    LINGERS = "a container goes on after its work is done"


class CloudFault(StrEnum):
    SLOW_LIGHT = "enabling an account takes minutes to be felt"
    SLOW_DARK = "disabling one does"


class OwnerAct(StrEnum):
    """Nothing goes wrong here, but it comes at a bad moment."""

    OVERWRITES = "an object is overwritten"
    REMOVES = "an object is removed"
    CANCELS = "a job is cancelled, twice at once"
    RESUMES = "a job that failed or was cancelled is asked for again, twice at once"
    BAD_ROWS = "an object has rows that nobody can train on"
    OTHER_ROWS = "an object has rows for another kind of training than its watch asks for"
    LONG_NAMES = "an object's name is so long that it cannot share a lease"
    TURNS_OFF = "a watch is turned off, and on again"
    WITHDRAWS = "the data accounts' grants are taken back, and given again"


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
_TIMEOUT_RATES = (0.0, 0.0, 0.3, 0.7)
_OTHER_RATES = (0.0, 0.0, 0.1, 0.3)


def _rates_of(fault: Fault) -> tuple[float, ...]:
    if fault in STALLS:
        return _STALL_RATES
    if isinstance(fault, CallFault):
        return _CALL_RATES
    if fault is TrainerFault.TIMES_OUT:
        return _TIMEOUT_RATES
    return _SWITCH_RATES if isinstance(fault, CloudFault) else _OTHER_RATES


@dataclass(frozen=True)
class Focus:
    """
    Where one seed lets more go wrong: in some calls of one unit, and `beside` them. What must meet
    there meets in a moment that is too short for the faults that strike everywhere.
    """

    unit: str = ""
    calls: tuple[str, ...] = ()
    there: Mapping[CallFault, float] = field(default_factory=dict)
    beside: Mapping[Fault, float] = field(default_factory=dict)


_UNDISTURBED: Mapping[Fault, float] = dict.fromkeys(TrainerFault, 0.0)

FOCI = (
    Focus(),
    Focus(  # two sweeps find the same
        unit="sweep",
        calls=("registry.commit",),
        there={CallFault.STALL_BEFORE: 0.2},
        beside={
            MessageFault.SWEPT_TWICE: 1.0,
            TrainerFault.TIMES_OUT: 1.0,
            TrainerFault.NEVER_STARTS: 0.25,
        },
    ),
    Focus(  # of two tokens the older is recorded last
        unit="broker.renew",
        calls=("cloud.mint",),
        there={CallFault.STALL_AFTER: 0.8},
        beside={**_UNDISTURBED, CloudFault.SLOW_DARK: 1.0, CloudFault.SLOW_LIGHT: 0.0},
    ),
    Focus(  # an account is lit for a lease that is over meanwhile
        unit="broker.open_for_training",
        calls=("registry.get",),
        there={CallFault.STALL_AFTER: 0.15},
        beside={
            **_UNDISTURBED,
            MessageFault.TWICE: 0.7,
            CloudFault.SLOW_DARK: 0.0,
            CloudFault.SLOW_LIGHT: 0.0,
        },
    ),
    Focus(  # a job is started while it is cancelled, or its container claims
        unit="start-training",
        calls=("broker.open_for_training", "registry.commit"),
        there={CallFault.STALL_BEFORE: 0.3},
        beside={OwnerAct.CANCELS: 0.7, TrainerFault.HANGS: 0.5},
    ),
)


@dataclass(frozen=True)
class Swarm:
    """How often each fault strikes in one seed, while there is chaos."""

    rates: Mapping[Fault, float]
    focus: Focus

    @classmethod
    def of(cls, draws: Draws) -> "Swarm":
        focus: Focus = draws.one_of(FOCI, "swarm", "focus")
        rates = {fault: draws.one_of(_rates_of(fault), "swarm", fault.name) for fault in FAULTS}
        return cls({**rates, **focus.beside}, focus)

    def focus_of(self, unit: str) -> tuple[str, ...]:
        """Those calls of that unit's that are struck more often."""
        return self.focus.calls if unit == self.focus.unit else ()

    def call_thresholds(self, *, in_focus: bool) -> list[tuple[int, CallFault]]:
        """Faults of calls as slices of what 64 bits can be, for one draw to fall into."""
        rates = {**self.rates, **(self.focus.there if in_focus else {})}
        edge, thresholds = 0, []
        for fault in CallFault:
            edge += int(rates[fault] * 2**64)
            if rates[fault]:
                thresholds.append((edge, fault))
        return thresholds
