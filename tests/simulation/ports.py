"""
The ports as the simulation has them: the memory twins, each call of which the scheduler sees; a
registry that keeps objects; accounts whose switch is felt late; topics that redeliver; containers
that die.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha512
from operator import itemgetter
from typing import Any

from simulation.faults import CloudFault, MessageFault, TrainerFault
from simulation.scheduler import Done, Process, Scheduler

from sublet.errors import BetterAlone, LostRace, MalformedEvent
from sublet.events import Fact
from sublet.machines import Machine
from sublet.memory.cloud import MemoryCloud
from sublet.memory.messages import MemoryDeadLetters, MemoryRunner
from sublet.memory.registry import MemoryRegistry
from sublet.names import Email, JobName, LeaseName
from sublet.ports import Clock, DeadLetter, ExecutionState, OutboxEntry, Query, R, Stored, Write

_ACK_DEADLINE_S = 600.0
_MAX_DELIVERIES = 10
_LONGEST_BACKOFF_S = 60.0
_LONGEST_GATHERING_S = 2.0
_NUM_TRIES = 3
_RECLAIMED_AFTER_S = 300.0
"""When the machine of a container that was taken for dead is switched off at last."""
_INSTANT = frozenset({"status_of"})
_READS = frozenset(
    {
        *("get", "find", "count", "outbox", "metadata", "policy", "managed_folders"),
        *("permissions_of", "is_enabled", "read", "list_folder", "look_up", "running", "pull"),
    }
)


class Suspended:
    """A twin, every method of which is a call that the scheduler sees."""

    def __init__(self, name: str, twin: Any, scheduler: Scheduler) -> None:
        self._name = name
        self._twin = twin
        self._scheduler = scheduler

    def __getattr__(self, method: str) -> Any:
        act = getattr(self._twin, method)
        if not callable(act) or method in _INSTANT:
            return act
        what, reads = f"{self._name}.{method}", method in _READS
        called = self.__dict__[method] = self._scheduler.suspended(what, act, reads=reads)
        return called


class Row:
    """A record as readers get it; its `index` is made when a query first asks for it."""

    __slots__ = ("index", "stored")
    index: Mapping[str, str]

    def __init__(self, stored: Stored[Any]) -> None:
        self.stored = stored

    def __getattr__(self, missing: str) -> Any:
        assert missing == "index"
        self.index = self.stored.record.index()
        return self.index


class SwiftRegistry(MemoryRegistry):
    """Keeps the records themselves, which are immutable, by kind; passes the contract suite."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.kinds: defaultdict[type, dict[str, Row]] = defaultdict(dict)
        self.on_commit: Callable[[list[tuple[Any, Any]]], None] = lambda changes: None

    def get(self, kind: type[R], key: str) -> Stored[R] | None:
        row = self.kinds[kind].get(key)
        return None if row is None else row.stored

    def all(self, kind: type[R]) -> list[R]:
        return [row.stored.record for row in self.kinds[kind].values()]

    def _matching(self, kind: type[R], query: Query) -> list[Stored[R]]:
        where, by, after = query.where.items(), query.order_by, query.after
        matching = [
            ((row.index.get(by, ""), key), row.stored)
            for key, row in self.kinds[kind].items()
            if where <= row.index.items()
        ]
        if after is not None:
            is_beyond = after.__gt__ if query.descending else after.__lt__
            matching = [found for found in matching if is_beyond(found[0])]
        matching.sort(key=itemgetter(0), reverse=query.descending)
        return [stored for _, stored in matching]

    def commit(self, *writes: Write, announcing: Sequence[Fact] = ()) -> list[OutboxEntry]:
        places = []
        for write in writes:
            rows, key = self.kinds[type(write.record)], write.record.key
            row, replaces = rows.get(key), write.replaces
            if (row.stored.version if row else 0) != (replaces.version if replaces else 0):
                raise LostRace(f"{key} has changed")
            places.append((write, rows, key))
        changes = [self._apply(*place) for place in places]
        now = self._clock.now()
        entries = [
            OutboxEntry(id=f"fact-{next(self._versions)}", fact=fact, committed_at=now)
            for fact in announcing
        ]
        self._outbox.update((entry.id, entry) for entry in entries)
        self.on_commit(changes)
        return entries

    def _apply(self, write: Write, rows: dict[str, Row], key: str) -> tuple[Any, Any]:
        row = rows.pop(key, None)
        before = row.stored.record if row else None
        if write.deletes:
            return before, None
        rows[key] = Row(Stored(write.record, next(self._versions)))
        return before, write.record


class SlowCloud(MemoryCloud):
    """
    An account's switch is felt after a delay; a later one overtakes an earlier one. `disabled` is
    what is felt, `asked` what was asked for last.
    """

    def __init__(self, clock: Clock, scheduler: Scheduler) -> None:
        super().__init__(clock)
        self._scheduler = scheduler
        self.asked: dict[Email, bool] = {}
        self._switches: Counter[Email] = Counter()
        self.on_lit: Callable[[Email], None] = lambda email: None
        self.on_mint: Callable[..., None] = lambda *minted: None

    def set_enabled(self, data_account: Email, *, enabled: bool) -> None:
        if self.asked.get(data_account, data_account not in self.disabled) == enabled:
            return
        self.asked[data_account] = enabled
        self._switches[data_account] += 1
        nth, delay = self._switches[data_account], 0.0
        where = f"{data_account} {nth}"
        slow = CloudFault.SLOW_LIGHT if enabled else CloudFault.SLOW_DARK
        if self._scheduler.may_strike(slow, where):
            delay = self._scheduler.draws.between(5, 420, "switch", where)

        def felt() -> None:
            if self._switches[data_account] == nth:
                super(SlowCloud, self).set_enabled(data_account, enabled=enabled)
                if enabled:
                    self.on_lit(data_account)

        self._scheduler.at(delay, felt) if delay else felt()

    def is_enabled(self, data_account: Email) -> bool:
        return self.asked.get(data_account, data_account not in self.disabled)

    def mint(self, data_account: Email, **asked: Any) -> Any:
        token = super().mint(data_account, **asked)
        self.on_mint(data_account, **asked)
        return token


class Stamp:
    """Stands for the key in Cloud KMS. Here nobody verifies what it signs."""

    public_key = bytes(32)

    def sign(self, message: bytes) -> bytes:
        return sha512(message).digest()


@dataclass(frozen=True)
class Handler:
    """
    The unit that acts on a kind of message. `together` handles several of a bucket that come close
    upon one another, as sublet.intake.gathering lets them.
    """

    unit: str
    alone: Callable[[Any], object]
    together: Callable[[Sequence[Any]], Sequence[object]] | None = None


class Topics:
    """
    Pub/Sub with push: at least once, out of order, again after a failure or an ack deadline, and
    at last to the dead letters.
    """

    def __init__(self, scheduler: Scheduler, dead_letters: MemoryDeadLetters) -> None:
        self._scheduler = scheduler
        self._dead_letters = dead_letters
        self.handlers: dict[type, Handler] = {}
        self.num_waiting = 0
        self.published: list[OutboxEntry] = []
        self._names: Counter[str] = Counter()
        self._arrived: defaultdict[str, list[tuple[Any, str, Done]]] = defaultdict(list)

    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        for entry in entries:
            self.published.append(entry)
            self.send(entry.fact, entry.fact.subject)

    def send(self, message: Any, subject: str) -> None:
        if type(message) not in self.handlers:
            return
        name = f"{self.handlers[type(message)].unit} {subject}"
        self._names[name] += 1
        where = f"{name} {self._names[name]}"
        may_strike, draws = self._scheduler.may_strike, self._scheduler.draws
        if may_strike(MessageFault.DROPPED, where):
            return
        late = may_strike(MessageFault.LATE, where)
        self._later(
            message, where, 1, draws.between(*((60, 900) if late else (0, 1)), "wait", where)
        )
        if may_strike(MessageFault.TWICE, where):
            self._later(message, f"{where} twice", 1, draws.between(0, 900, "twice", where))

    def _later(self, message: Any, where: str, attempt: int, delay_s: float) -> None:
        self.num_waiting += 1
        self._scheduler.at(delay_s, lambda: self._deliver(message, where, attempt))

    def _deliver(self, message: Any, where: str, attempt: int) -> None:
        handler = self.handlers[type(message)]
        settled: list[bool] = []

        def settle(*, acknowledged: bool) -> None:
            if settled:
                return
            settled.append(True)
            self.num_waiting -= 1
            if acknowledged:
                return
            if attempt < _MAX_DELIVERIES:
                self._later(message, where, attempt + 1, min(2.0**attempt, _LONGEST_BACKOFF_S))
            else:
                self._give_up(where)

        def done(_: Any, error: BaseException | None) -> None:
            settle(acknowledged=error is None or isinstance(error, MalformedEvent))

        self._scheduler.at(_ACK_DEADLINE_S, lambda: settle(acknowledged=False))
        if handler.together:
            self._arrive(message, f"{where} #{attempt}", done)
        else:
            self._scheduler.spawn(f"{where} #{attempt}", partial(handler.alone, message), done)

    def _arrive(self, message: Any, where: str, done: Done) -> None:
        """What comes to a bucket within a moment is handled together."""
        company = self._arrived[message.bucket]
        company.append((message, where, done))
        if len(company) == 1:
            moment = self._scheduler.draws.between(0, _LONGEST_GATHERING_S, "gather", where)
            self._scheduler.at(moment, partial(self._handle_together, message.bucket))

    def _handle_together(self, bucket: str) -> None:
        company = self._arrived.pop(bucket)
        messages = [message for message, _, _ in company]
        handler = self.handlers[type(messages[0])]
        assert handler.together is not None
        self._scheduler.seen["events handled together"] += len(company) > 1

        def answered(answers: Sequence[object] | None, error: BaseException | None) -> None:
            answers = answers or [error] * len(company)
            for (message, where, done), answer in zip(company, answers, strict=True):
                if isinstance(answer, BetterAlone):
                    alone = partial(handler.alone, message)
                    self._scheduler.spawn(f"{where} alone", alone, done)
                else:
                    done(answer, answer if isinstance(answer, BaseException) else None)

        where = company[0][1]
        name = where if len(company) == 1 else f"{where} and {len(company) - 1} more"
        self._scheduler.spawn(name, partial(handler.together, messages), answered)

    def _give_up(self, where: str) -> None:
        unit = where.partition(" ")[0]
        letter = DeadLetter(id=where, subscription=unit, num_deliveries=_MAX_DELIVERIES, body=b"")
        self._dead_letters.waiting[where] = letter


class Containers(MemoryRunner):
    """Executions whose containers are processes, tried again when they die."""

    def __init__(self, clock: Clock, scheduler: Scheduler) -> None:
        super().__init__(clock)
        self.is_seen_late = True
        self._scheduler = scheduler
        self._processes: dict[str, list[Process]] = {}
        self._lost: set[tuple[str, int]] = set()
        self.train: Callable[[str, int], None] = lambda execution, attempt: None

    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        name = super().start(job, lease, machine)
        if self._scheduler.may_strike(TrainerFault.NEVER_STARTS, name):
            self._scheduler.at(30, lambda: self._over(name, ExecutionState.FAILED, "no image"))
        else:
            self._launch(name, 0)
        return name

    def cancel(self, execution: str) -> None:
        super().cancel(execution)
        for process in self._processes.get(execution, ()):
            self._scheduler.kill(process)

    def _over(self, name: str, state: ExecutionState, message: str = "") -> None:
        if self.look_up(name).state is ExecutionState.RUNNING:
            self.end(name, state, message)
            self._scheduler.at(_RECLAIMED_AFTER_S, lambda: self.cancel(name))

    def _launch(self, name: str, attempt: int) -> None:
        where = f"{name} try {attempt}"
        draws = self._scheduler.draws
        boot = draws.between(2, 40, "boot", where)

        def done(_: Any, error: BaseException | None) -> None:
            if (name, attempt) not in self._lost:
                self._ended(name, attempt, error)

        def launch() -> None:
            if self.look_up(name).state is not ExecutionState.RUNNING:
                return
            process = self._scheduler.spawn(where, lambda: self.train(name, attempt), done)
            self._processes.setdefault(name, []).append(process)
            if self._scheduler.may_strike(TrainerFault.KILLED, where):
                after = draws.between(0, 200, "kill", where)
                self._scheduler.at(after, lambda: self._scheduler.kill(process))
            elif self._scheduler.may_strike(TrainerFault.LOST, where):
                after = draws.between(0, 100, "lose", where)
                self._scheduler.at(after, lambda: self._lose(name, attempt))
            elif self._scheduler.may_strike(TrainerFault.TIMES_OUT, where):
                after = draws.between(10, 130, "time out", where)
                self._scheduler.at(after, lambda: self._time_out(name))

        self._scheduler.at(boot, launch)

    def _time_out(self, name: str) -> None:
        for process in self._processes[name]:
            self._scheduler.kill(process)
        self._over(name, ExecutionState.FAILED, "the time limit was reached")

    def _lose(self, name: str, attempt: int) -> None:
        if attempt < _NUM_TRIES and self.look_up(name).state is ExecutionState.RUNNING:
            self._lost.add((name, attempt))
            self._launch(name, attempt + 1)

    def _ended(self, name: str, attempt: int, error: BaseException | None) -> None:
        if error is None:
            self._over(name, ExecutionState.SUCCEEDED)
        elif attempt >= _NUM_TRIES:
            self._over(name, ExecutionState.FAILED, "exit code 1, four times")
        elif self.look_up(name).state is ExecutionState.RUNNING:
            self._launch(name, attempt + 1)
