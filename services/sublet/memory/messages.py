"""
A broker and a runner in one process: what was published waits to be delivered, what was started
waits.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from sublet.events import Fact
from sublet.machines import Machine
from sublet.names import JobName, LeaseName
from sublet.ports import (
    LIVING_EXECUTIONS,
    Clock,
    DeadLetter,
    Execution,
    ExecutionState,
    OutboxEntry,
)


class MemoryPublisher:
    """
    Keeps what was published, in order; who takes a fact decides whether and how often to handle it.
    """

    def __init__(self) -> None:
        self.published: list[OutboxEntry] = []
        self.waiting: list[Fact] = []

    def publish(self, entries: Sequence[OutboxEntry]) -> None:
        self.published += entries
        self.waiting += (entry.fact for entry in entries)


class MemoryDeadLetters:
    def __init__(self) -> None:
        self.waiting: dict[str, DeadLetter] = {}

    def pull(self, *, limit: int) -> list[DeadLetter]:
        return list(self.waiting.values())[:limit]

    def acknowledge(self, letter: DeadLetter) -> None:
        self.waiting.pop(letter.id, None)


class MemoryRunner:
    """`is_seen_late`: what was started is not found by a repeat that follows at once."""

    def __init__(self, clock: Clock) -> None:
        self.is_seen_late = False
        self._clock = clock
        self.started: dict[str, LeaseName] = {}
        self._executions: dict[str, Execution] = {}
        self._numbers = itertools.count(1)

    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        del job, machine
        if not self.is_seen_late:
            for execution in self.running():
                if lease and execution.lease == lease:
                    return execution.name
        name = f"execution-{next(self._numbers)}"
        self.started[name] = lease
        self._executions[name] = Execution(
            name=name,
            state=ExecutionState.RUNNING,
            lease=lease,
            started_at=self._clock.now(),
        )
        return name

    def look_up(self, execution: str) -> Execution:
        unknown = Execution(name=execution, state=ExecutionState.UNKNOWN, message="not found")
        return self._executions.get(execution, unknown)

    def running(self) -> list[Execution]:
        return [e for e in self._executions.values() if e.state in LIVING_EXECUTIONS]

    def cancel(self, execution: str) -> None:
        if self.look_up(execution).state in LIVING_EXECUTIONS:
            self.end(execution, ExecutionState.CANCELLED)

    def end(self, execution: str, state: ExecutionState, message: str = "") -> None:
        """What becomes of a container, as the cloud would come to know it."""
        ended = replace(self._executions[execution], state=state, message=message)
        self._executions[execution] = ended
