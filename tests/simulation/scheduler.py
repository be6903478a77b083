"""
Virtual time, and processes in it. A process is plain synchronous code in a greenlet; it stands
still at each call of a port, and the scheduler decides what becomes of the call and who goes on.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from greenlet import getcurrent, greenlet
from simulation.draws import Draws, who_is
from simulation.faults import CallFault, Fault, Swarm

from sublet.errors import SubletError, TryAgain
from sublet.memory.clock import MemoryClock

_FASTEST_S, _SLOWEST_S = 0.002, 0.1
_STALLS_S = (60.0, 1500.0)
_TIMEOUT_S = 60.0
_HALF = 2**32
_MASK = 2**64 - 1
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
    __slots__ = ("calls", "greenlet", "is_dead", "name", "ticket", "who")

    def __init__(self, name: str) -> None:
        self.name = name
        self.who = who_is(name) ^ _CALL
        self.greenlet: greenlet | None = None
        self.is_dead = False
        self.calls = 0
        self.ticket = 0


class Scheduler:
    def __init__(self, clock: MemoryClock, draws: Draws, swarm: Swarm) -> None:
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
        self.num_calls = 0
        self._thresholds = swarm.call_thresholds()
        self._any_fault = self._thresholds[-1][0] if self._thresholds else 0.0
        self._current: Process | None = None
        self._main = getcurrent()
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
        heap, pop = self._heap, heapq.heappop
        while heap and heap[0][0] <= end_s and not self.is_stopped:
            time_s, _, act, process, ticket = pop(heap)
            if time_s > self.now_s:
                self.clock.advance(timedelta(seconds=time_s - self.now_s))
                self.now_s = time_s
            if process is None:
                act()
            elif process.ticket == ticket and not process.is_dead:
                self._current = process
                process.greenlet.switch()
                self._current = None
        if not self.is_stopped:
            self.clock.advance(timedelta(seconds=end_s - self.now_s))
            self.now_s = end_s

    # --- processes --------------------------------------------------------------------------------

    def spawn(self, name: str, body: Callable[[], Any], done: Done | None = None) -> Process:
        process = Process(name)

        def run() -> None:
            value, error = None, None
            try:
                value = body()
            except (SubletError, Killed) as met:
                error = met
            except Exception as met:  # noqa: BLE001  whatever it is, it is a defect, and told
                error = met
                self.defects.append(f"{name}: {type(met).__name__}: {met}")
                self.is_stopped = True
            process.is_dead = True
            self.processes.pop(id(process), None)
            if done:
                done(value, error)

        process.greenlet = greenlet(run, self._main)
        self.processes[id(process)] = process
        self._wake_at(0.0, process, process.ticket)
        return process

    def kill(self, process: Process) -> None:
        """As the power fails: no clean-up has any effect."""
        if not process.is_dead:
            process.is_dead = True
            self.at(0.0, lambda: self._bury(process))

    def kill_all(self) -> None:
        for process in list(self.processes.values()):
            process.is_dead = True
            self._bury(process)

    def sleep(self, seconds: float) -> None:
        self._pause(self._running(), seconds)

    def _bury(self, process: Process) -> None:
        """Let a dead process find out, so that nothing is left of it."""
        if not process.greenlet.dead:
            self._current = process
            process.greenlet.throw(Killed())
            self._current = None

    def _running(self) -> Process:
        assert self._current is not None
        return self._current

    def _pause(self, process: Process, seconds: float) -> None:
        process.ticket += 1
        self._wake_at(seconds, process, process.ticket)
        self._main.switch()
        if process.is_dead:
            raise Killed

    # --- calls ------------------------------------------------------------------------------------

    def call(self, what: str, effect: Callable[[], Any], *, reads: bool = False) -> Any:
        """
        A port is called: it takes a while, others go on meanwhile, and it may go wrong. Three reads
        in four take no time, since what comes between two reads can come before the second as well.
        """
        process = self._current
        if process is None:
            return effect()
        if process.is_dead:
            raise Killed
        self.num_calls += 1
        process.calls += 1
        bits = self.draws.bits(process.who, process.calls)
        self.trace = self.trace * 31 + bits & _MASK
        chance = (bits >> 32) / _HALF
        latency = _FASTEST_S + (bits & 0xFFFF) / 0xFFFF * (_SLOWEST_S - _FASTEST_S)
        is_faulty = chance < self._any_fault and not self.is_calm
        if is_faulty and (fault := self._fault(chance, process, what)):
            return self._faulty(fault, process, latency, effect)
        if not reads or not bits & 3:
            self._pause(process, latency)
        return effect()

    def _fault(self, chance: float, process: Process, what: str) -> CallFault | None:
        for edge, fault in self._thresholds:
            if chance < edge:
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
        stall = self.draws.between(*_STALLS_S, "stall", process.name, process.calls)
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

    def _die(self, process: Process) -> None:
        process.is_dead = True
        raise Killed

    def remote(self, what: str, body: Callable[[], Any]) -> Any:
        """
        A call that is served by another process, which may die or dawdle while its caller lives, or
        go on after its caller died.
        """
        client = self._current
        if client is None:
            return body()
        return self.call(what, lambda: self._served(client, what, body))

    def _served(self, client: Process, what: str, body: Callable[[], Any]) -> Any:
        answers: list[tuple[Any, BaseException | None]] = []
        client.ticket += 1
        ticket = client.ticket

        def done(value: Any, error: BaseException | None) -> None:
            answers.append((value, error))
            self._wake_at(0.0, client, ticket)

        self.spawn(f"{client.name} {client.calls} {what}", body, done)
        self._wake_at(_TIMEOUT_S, client, ticket)
        self._main.switch()
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
