"""
Faults with names, which a local cloud commits when it is asked to: once, so many times, or at a
rate. Whoever can commit one asks `strikes` at each occasion; nothing happens unless somebody has
ordered it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from random import Random
from typing import Final

from sublet.errors import InvalidRequest


class Fault(StrEnum):
    DELIVER_TWICE = "deliver-twice"
    DELIVER_LATE = "deliver-late"
    REORDER = "reorder"
    DROP_NOTIFICATION = "drop-notification"
    RETURN_503 = "return-503"
    RESET_CONNECTION = "reset-connection"
    SLOW = "slow"
    ETAG_CONFLICT = "etag-conflict"
    KILL_TRAINER = "kill-trainer"
    KILL_FUNCTION = "kill-function"
    DISK_FULL = "disk-full"
    TOKEN_EXPIRY_NOW = "token-expiry-now"  # noqa: S105  a name


MEANINGS: Final[Mapping[Fault, str]] = {
    Fault.DELIVER_TWICE: "a message that was acknowledged is delivered once more",
    Fault.DELIVER_LATE: "a message waits before it is first delivered",
    Fault.REORDER: "a message waits for a random part of that, so later ones overtake it",
    Fault.DROP_NOTIFICATION: "a bucket's notification is never published",
    Fault.RETURN_503: "a request is answered 503 and has no effect",
    Fault.RESET_CONNECTION: "a request has its effect, and the connection is cut before the answer",
    Fault.SLOW: "a request waits before it is looked at",
    Fault.ETAG_CONFLICT: "a conditional write or a policy write is answered 412",
    Fault.KILL_TRAINER: "a running task gets SIGKILL",
    Fault.KILL_FUNCTION: "a deploy unit's process gets SIGKILL",
    Fault.DISK_FULL: "an upload finds no space left on the device",
    Fault.TOKEN_EXPIRY_NOW: "the token of a request expires as it arrives",
}
DEFAULT_DELAY: Final = timedelta(seconds=2)
_SEEDED: Final = 0


@dataclass(slots=True, kw_only=True)
class Order:
    """
    Commit `fault` on occasions whose subject contains `on`, each with probability `rate`, `times`
    times in all (None: without end). `delay` is how long the slow ones wait, at most.
    """

    fault: Fault
    on: str = ""
    rate: float = 1.0
    times: int | None = 1
    delay: timedelta = DEFAULT_DELAY
    num_struck: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise InvalidRequest(f"rate: got {self.rate}; expected more than 0 and at most 1")
        if self.times is not None and self.times < 1:
            raise InvalidRequest(f"times: got {self.times}; expected 1 or more")

    @property
    def is_spent(self) -> bool:
        return self.times is not None and self.num_struck >= self.times


class Faults:
    """The orders in force. Asked from one event loop; random draws repeat from start to start."""

    def __init__(self) -> None:
        self._orders: list[Order] = []
        self._random = Random(_SEEDED)  # noqa: S311  chance, not secrecy

    @property
    def orders(self) -> tuple[Order, ...]:
        return tuple(self._orders)

    def add(self, order: Order) -> None:
        self._orders.append(order)

    def clear(self, fault: Fault | None = None) -> None:
        """Take back the orders for one fault, or all of them."""
        self._orders = [o for o in self._orders if fault is not None and o.fault is not fault]

    def strikes(self, fault: Fault, subject: str) -> bool:
        """Is it to be committed now? `subject` says on what, such as "storage POST /upload/..."."""
        return self._strike(fault, subject) is not None

    def delay(self, fault: Fault, subject: str) -> timedelta:
        """How long to wait now; zero if nobody ordered it."""
        order = self._strike(fault, subject)
        if order is None:
            return timedelta(0)
        return order.delay * (self._random.random() if fault is Fault.REORDER else 1)

    def _strike(self, fault: Fault, subject: str) -> Order | None:
        for order in self._orders:
            meant = order.fault is fault and order.on in subject and not order.is_spent
            if meant and self._random.random() < order.rate:
                order.num_struck += 1
                return order
        return None


def parse_fault(name: str) -> Fault:
    """
    Raises:
        InvalidRequest: no fault has that name; lists those that there are.
    """
    try:
        return Fault(name)
    except ValueError:
        raise InvalidRequest(f"got fault {name!r}; expected one of {', '.join(Fault)}") from None
