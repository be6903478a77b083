"""
Virtual time, and processes in it. A process is plain synchronous code in a greenlet; it stands
still at each call of a port, and the scheduler decides what becomes of the call and who goes on.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from greenlet import getcurrent, greenlet
from simulation.clock import VirtualClock
from simulation.draws import Draws, who_is
from simulation.faults import STALLS, CallFault, Fault, Swarm

from sublet.errors import SubletError, TryAgain

_FASTEST_S, _SLOWEST_S = 0.002, 0.1
_SHORTEST_STALL_S, _LONGEST_STALL_S = 60.0, 1500.0
_TIMEOUT_S = 60.0
_MASK = 2**64 - 1
_FACTOR, _STEP = 6364136223846793005, 1442695040888963407
"""Of Knuth's linear congruential generator: the next draw of a process costs one multiplication."""
_NOT_NOW = 3 << 40
_AT_ONCE = frozenset({"cloud.set_enabled"})
"""
Calls that nothing can hold up between the last look at the clock and the effect. A process that is
frozen just there for minutes lights an account for a lease that is over, until it looks again; no
switch of Google's takes a precondition that would prevent it (docs/simulation.md).
"""
_CALL = who_is("call")

_nothing = lambda: None  # noqa: E731
Done = Callable[[Any, BaseException | None], None]


class Killed(BaseException):
    """What a process meets that has died: nothing it does from then on has an effect."""


class Process:
    """
    `bits` is the draw for its latest call: the nth of a row that its name and the seed start.
    `focus` are calls of it that go wrong more often than others.
    """

    __slots__ = ("bits", "body", "calls", "done", "focus", "greenlet", "is_dead", "name", "ticket")

    def __init__(
        self,
        name: str,
        body: Callable[[], Any],
        done: Done | None,
        *,
        bits: int,
        focus: tuple[str, ...],
    ) -> None:
        self.name = name
        self.body = body
        self.done = done
        self.bits = bits
        self.focus = focus
        self.greenlet: greenlet | None = None
        self.is_dead = False
        self.calls = 0
        self.ticket = 0

    def run(self) -> tuple[Any, BaseException | None]:
        try:
            return self.body(), None
        except (Exception, Killed) as met:  # noqa: BLE001  what is no error of ours is a defect
            return None, met


class Scheduler:
    def __init__(self, clock: VirtualClock, draws: Draws, swarm: Swarm) -> None:
        self.clock = clock
        self.draws = draws
        self.swarm = swarm
        self.is_calm = False
        self.is_stopped = False
        self.spared: frozenset[tuple[str, str]] = frozenset()
        """Faults that are left out, by fault and where: how a failing run is made smaller."""
        self.injected: list[tuple[str, str]] = []
        self.seen: Counter[str] = Counter()
        self.defects: list[str] = []
        self.processes: dict[int, Process] = {}
        self.trace = 0
        self.now_s = 0.0
        self._end_s = 0.0
        self.num_calls = 0
        self._thresholds = {
            in_focus: swarm.call_thresholds(in_focus=in_focus) for in_focus in (False, True)
        }
        self._current: Process | None = None
        self.main = getcurrent()
        self._heap: list[tuple[float, int, Callable[[], None], Process | None, int]] = []
        self._order = itertools.count()

    # --- time -------------------------------------------------------------------------------------

    def at(self, delay_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + delay_s, next(self._order), act, None, 0))

    def _wake_at(self, delay_s: float, process: Process, ticket: int) -> None:
        """Let the process go on then, if it still waits with that ticket."""
        entry = (self.now_s + delay_s, next(self._order), _nothing, process, ticket)
        heapq.heappush(self._heap, entry)

    def run_until(self, end_s: float) -> None:
        """Everything that happens until then, unless it is stopped before."""
        self._end_s = end_s
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end_s and not self.is_stopped:
            time_s, _, act, process, ticket = pop(heap)
            self._stand_at(time_s)
            if process is None:
                act()
            elif process.ticket == ticket and not process.is_dead:
                self._go_on(process)
        if not self.is_stopped:
            self._stand_at(end_s)

    def _stand_at(self, time_s: float) -> None:
        self.now_s = self.clock.passed_s = time_s

    # --- processes --------------------------------------------------------------------------------

    def spawn(
        self, name: str, body: Callable[[], Any], done: Done | None = None, *, unit: str = ""
    ) -> Process:
        """`unit` is what the process is one of: the first word of its name, if it does not say."""
        process = Process(
            name,
            body,
            done,
            bits=self.draws.bits(who_is(name) ^ _CALL, 0),
            focus=self.swarm.focus_of(unit or name.partition(" ")[0]),
        )
        self.processes[id(process)] = process
        self._wake_at(0.0, process, process.ticket)
        return process

    def _go_on(self, process: Process) -> None:
        self.trace = hash((self.trace, process.bits, self.now_s))
        self._current = process
        if process.greenlet:
            process.greenlet.switch()
        else:
            process.greenlet = _IDLE.pop() if _IDLE else _waiting()
            process.greenlet.switch(self, process)
        self._current = None

    def over(self, process: Process, value: Any, error: BaseException | None) -> None:
        process.is_dead = True
        self.num_calls += process.calls
        del self.processes[id(process)]
        if error and not isinstance(error, SubletError | Killed):
            self.defects.append(f"{process.name}: {type(error).__name__}: {error}")
            self.is_stopped = True
        if process.done:
            process.done(value, error)

    def kill(self, process: Process) -> None:
        """As the power fails: no clean-up has any effect."""
        if not process.is_dead:
            process.is_dead = True
            self.at(0.0, partial(self._bury, process))

    def kill_all(self) -> None:
        for process in list(self.processes.values()):
            process.is_dead = True
            self._bury(process)

    def sleep(self, seconds: float) -> None:
        self._pause(self._running(), seconds)

    def _bury(self, process: Process) -> None:
        """Let a dead process find out, so that nothing is left of it."""
        if process.greenlet:
            self._go_on(process)
        else:
            self.over(process, None, Killed())

    def _running(self) -> Process:
        assert self._current is not None
        return self._current

    def _pause(self, process: Process, seconds: float) -> None:
        """Others go on meanwhile; where none has anything to do until then, time just passes."""
        process.ticket += 1
        wakes_at = self.now_s + seconds
        is_next = not self._heap or wakes_at < self._heap[0][0]
        if is_next and wakes_at <= self._end_s and not self.is_stopped:
            self._stand_at(wakes_at)
            return
        self._wake_at(seconds, process, process.ticket)
        self.main.switch()
        if process.is_dead:
            raise Killed

    # --- calls ------------------------------------------------------------------------------------

    def suspended(
        self, what: str, act: Callable[..., Any], *, reads: bool = False
    ) -> Callable[..., Any]:
        """
        `act` as a call of a port: it takes a while, others go on meanwhile, and it may go wrong.
        Three reads in four take no time, since what comes between two reads can come before the
        second as well.
        """
        seldom, often = map(self._any_fault, (False, True))

        def called(*args: Any, **named: Any) -> Any:
            process = self._current
            if process is None:
                return act(*args, **named)
            if process.is_dead:
                raise Killed
            process.calls += 1
            bits = process.bits = process.bits * _FACTOR + _STEP & _MASK
            fault = None
            if bits < (often if what in process.focus else seldom) and not self.is_calm:
                fault = self._fault(bits, process, what)
            if reads and bits & _NOT_NOW and not fault:
                return act(*args, **named)
            latency = _FASTEST_S + (bits >> 16 & 0xFFFF) / 0xFFFF * (_SLOWEST_S - _FASTEST_S)
            if fault:
                return self._faulty(fault, process, latency, partial(act, *args, **named))
            self._pause(process, latency)
            return act(*args, **named)

        return called

    def _any_fault(self, in_focus: bool) -> int:
        thresholds = self._thresholds[in_focus]
        return thresholds[-1][0] if thresholds else 0

    def _fault(self, bits: int, process: Process, what: str) -> CallFault | None:
        for edge, fault in self._thresholds[what in process.focus]:
            if bits < edge:
                if fault is CallFault.STALL_BEFORE and what in _AT_ONCE:
                    return None
                where = f"{process.name} {process.calls} {what}"
                return fault if self.strikes(fault, where) else None
        return None

    def strikes(self, fault: Fault, where: str) -> bool:
        """Record a fault that has been drawn, unless it is one to be spared."""
        if self.is_calm or (fault.name, where) in self.spared:
            return False
        self.injected.append((fault.name, where))
        self.seen[f"fault {fault.name}"] += 1
        return True

    def may_strike(self, fault: Fault, where: str) -> bool:
        drawn = self.draws.happens(self.swarm.rates[fault], fault.name, where)
        return drawn and self.strikes(fault, where)

    def _faulty(
        self, fault: CallFault, process: Process, latency: float, effect: Callable[[], Any]
    ) -> Any:
        stall = self._stall_of(process) if fault in STALLS else 0.0
        if fault is CallFault.CRASH_BEFORE:
            self._die(process)
        self._pause(process, stall if fault is CallFault.STALL_BEFORE else latency)
        if fault is CallFault.BUSY:
            raise TryAgain("busy")
        value = effect()
        if fault is CallFault.CRASH_AFTER:
            self._die(process)
        if fault is CallFault.LOST_REPLY:
            self._pause(process, _TIMEOUT_S)
            raise TryAgain("no reply")
        if fault is CallFault.STALL_AFTER:
            self._pause(process, stall)
        return value

    def _stall_of(self, process: Process) -> float:
        """Rather a few minutes, which is what a token lives, than many."""
        share: float = self.draws.unit("stall", process.name, process.calls)
        return _SHORTEST_STALL_S + share**2 * (_LONGEST_STALL_S - _SHORTEST_STALL_S)

    def _die(self, process: Process) -> None:
        process.is_dead = True
        raise Killed

    def remote(self, what: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """
        `act` as a call that is served by another process, which may die or dawdle while its caller
        lives, or go on after its caller died.
        """

        def served(*args: Any, **named: Any) -> Any:
            client = self._current
            if client is None:
                return act(*args, **named)
            return self._served(client, what, partial(act, *args, **named))

        return self.suspended(what, served)

    def _served(self, client: Process, what: str, body: Callable[[], Any]) -> Any:
        answers: list[tuple[Any, BaseException | None]] = []
        client.ticket += 1
        ticket = client.ticket

        def done(value: Any, error: BaseException | None) -> None:
            answers.append((value, error))
            self._wake_at(0.0, client, ticket)

        self.spawn(f"{client.name} {client.calls} {what}", body, done, unit=what)
        self._wake_at(_TIMEOUT_S, client, ticket)
        self.main.switch()
        client.ticket += 1
        if client.is_dead:
            raise Killed
        if not answers:
            raise TryAgain(f"{what}: no answer in time")
        value, error = answers[0]
        if isinstance(error, SubletError):
            raise error
        if error:
            raise TryAgain(f"{what}: the connection was lost")
        return value


_IDLE: list[greenlet] = []


def _waiting() -> greenlet:
    """What a greenlet is begun with it holds for ever; so with nothing."""
    made = greenlet(_serve)
    made.switch()
    return made


def _serve() -> None:
    """One greenlet runs one process after the other: a stack is dear, and most lives short."""
    this = getcurrent()
    while True:
        scheduler, process = this.parent.switch()
        scheduler.over(process, *process.run())
        del scheduler, process  # while it waits, a world that is over is garbage
        _IDLE.append(this)
