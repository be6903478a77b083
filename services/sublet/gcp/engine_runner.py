"""Each job on the engine that has its machine. An execution's name says where it runs."""

from typing import Final

from sublet.gcp.vertex_runner import PREFIX
from sublet.machines import Engine, Machine, Offer
from sublet.names import JobName, LeaseName
from sublet.ports import Execution, Runner


class EngineRunner:
    def __init__(self, offer: Offer, *, cloud_run: Runner, vertex_ai: Runner) -> None:
        self._offer = offer
        self._runners: Final = {Engine.CLOUD_RUN: cloud_run, Engine.VERTEX_AI: vertex_ai}

    def start(self, job: JobName, lease: LeaseName, machine: Machine | None = None) -> str:
        engine = self._offer.shape_of(machine).engine
        return self._runners[engine].start(job, lease, machine)

    def look_up(self, execution: str) -> Execution:
        return self._that_has(execution).look_up(execution)

    def running(self) -> list[Execution]:
        return [one for runner in self._runners.values() for one in runner.running()]

    def cancel(self, execution: str) -> None:
        self._that_has(execution).cancel(execution)

    def _that_has(self, execution: str) -> Runner:
        is_on_vertex = execution.startswith(PREFIX)
        return self._runners[Engine.VERTEX_AI if is_on_vertex else Engine.CLOUD_RUN]
