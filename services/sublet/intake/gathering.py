"""
Gathering: events that come while others of their kind are being handled wait, and are handled
together by one of the requests that brought them. An event that comes alone is handled at once;
none is handled with anything that was found out before it came. Each request answers for its own.
"""

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event, Lock
from traceback import extract_tb
from typing import Final, Generic, TypeVar

from sublet.errors import BetterAlone, SubletError
from sublet.intake.logs import log
from sublet.together import outcome

E = TypeVar("E")
R = TypeVar("R")

_AT_ONCE: Final = 2
"""Companies of one kind: while one waits for an answer, the other works."""


@dataclass(slots=True)
class _Guest(Generic[E, R]):
    event: E
    answer: R | SubletError = field(default_factory=lambda: BetterAlone("not handled yet"))
    leads: "list[_Guest[E, R]]" = field(default_factory=list)
    woken: Event = field(default_factory=Event)


@dataclass(slots=True)
class _Queue(Generic[E, R]):
    waiting: deque[_Guest[E, R]] = field(default_factory=deque)
    num_leaders: int = 0


class Gathering(Generic[E, R]):
    """
    Args:
        together: handles at most `most` events; returns for each its answer or its error, and
            BetterAlone for one that it leaves to `alone`. An error of ours that it raises is each
            one's answer; any other blames none of them, and each is handled alone.
        kind_of: only events of one kind are handled together.
        at_once_alone: how many events `alone` may be handling at any time; others wait.
    """

    def __init__(
        self,
        *,
        alone: Callable[[E], R],
        together: Callable[[Sequence[E]], Sequence[R | SubletError]],
        kind_of: Callable[[E], Hashable],
        most: int,
        at_once_alone: int,
    ) -> None:
        self._alone = alone
        self._together = together
        self._kind_of = kind_of
        self._most = most
        self._turns_alone = BoundedSemaphore(at_once_alone)
        self._lock = Lock()
        self._queues: dict[Hashable, _Queue[E, R]] = {}

    @property
    def num_waiting(self) -> int:
        """Events that no company has taken up yet."""
        with self._lock:
            return sum(len(queue.waiting) for queue in self._queues.values())

    def handle(self, event: E) -> R:
        """Returns or raises what `together` answers for this event, or what `alone` does."""
        guest: _Guest[E, R] = _Guest(event)
        kind = self._kind_of(event)
        with self._lock:
            queue = self._queues.setdefault(kind, _Queue())
            if queue.num_leaders < _AT_ONCE:
                queue.num_leaders += 1
                guest.leads = [guest]
            else:
                queue.waiting.append(guest)
        if not guest.leads:
            guest.woken.wait()
        if guest.leads:
            self._lead(guest.leads, kind, queue)
        if not isinstance(guest.answer, BetterAlone):
            return outcome(guest.answer)
        with self._turns_alone:
            return self._alone(event)

    def _lead(self, company: list[_Guest[E, R]], kind: Hashable, queue: _Queue[E, R]) -> None:
        """Handle them, the leader among them; then let others lead, and wake all of them."""
        try:
            answers = self._together([guest.event for guest in company])
            for guest, answer in zip(company, answers, strict=True):
                guest.answer = answer
        except SubletError as error:
            for guest in company:
                guest.answer = error
        except Exception as error:  # noqa: BLE001  whose fault it is shows when each is alone
            place = extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__} in {place.name}, line {place.lineno}"
            log("ERROR", f"{what}, of {len(company)} events; each is handled alone")
        finally:
            self._hand_over(kind, queue)
            for guest in company:
                guest.woken.set()

    def _hand_over(self, kind: Hashable, queue: _Queue[E, R]) -> None:
        """The lead to one of those who have waited longest, and them to it."""
        with self._lock:
            if queue.waiting:
                many = min(self._most, len(queue.waiting))
                company = [queue.waiting.popleft() for _ in range(many)]
                company[0].leads = company
                company[0].woken.set()
                return
            queue.num_leaders -= 1
            if not queue.num_leaders:
                del self._queues[kind]
