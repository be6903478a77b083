"""Sudden death, as ordered: of the tasks that run, and of the deploy units' processes."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Final

from sublet.local.faults import Fault, Faults
from sublet.local.run.jobs import RunState
from sublet.local.units import Units

OCCASIONS_EVERY_S: Final = 0.25
"""How often each living process is an occasion: a rate is a probability at each of them."""


class Chaos:
    def __init__(self, faults: Faults, run_state: RunState, units: Units) -> None:
        self._faults = faults
        self._run_state = run_state
        self._units = units

    async def run(self) -> None:
        """Look for whom to kill, until cancelled."""
        while True:
            if self._faults.orders:
                self._look_around()
            await asyncio.sleep(OCCASIONS_EVERY_S)

    def _look_around(self) -> None:
        for execution in self._run_state.running():
            for task in execution.tasks:
                if task.pid and self._faults.strikes(Fault.KILL_TRAINER, execution.name):
                    _kill(task.pid)
        for name, unit in self._units.running.items():
            process = unit.process
            if not process or not process.is_alive:
                continue
            if self._faults.strikes(Fault.KILL_FUNCTION, name):
                _kill(process.pid)


def _kill(session: int) -> None:
    """A process of the local cloud leads a session, so all that it started goes with it."""
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)
