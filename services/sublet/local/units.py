"""
The deploy units on a laptop: each function and service is its own process with its own identity,
run by the server that runs it in the cloud, forked from one that has their libraries. Their sockets
are held here, as Cloud Run's front end holds them, so that a unit that starts, or starts again,
keeps callers waiting instead of refusing them.
"""

import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

import httpx

from sublet.local.forks import Fork, ForkServer
from sublet.local.servers import Ports

_GRACE: Final = timedelta(seconds=5)
_READY_WITHIN: Final = timedelta(seconds=60)
_RESTART_PAUSES_S: Final = (0.1, 1.0, 5.0, 15.0)
_LIVED_WELL_S: Final = 30.0
LIBRARIES: Final = (
    "fastapi",
    "functions_framework._http.gunicorn",
    "google.cloud.firestore_v1",
    "google.cloud.run_v2",
    "google.pubsub_v1",
    "gunicorn.workers.gthread",
    "sublet.api.app",
    "sublet.broker.app",
    "sublet.intake.envelopes",
    "sublet.sqlite.registry",
    "uvicorn.main",
)
"""What the units share; nothing that reads its environment when it is imported, as
google.auth.compute_engine does (each unit has a metadata server of its own)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """
    `name` is the folder's and the identity's; `target` is a function's entry point, and
    `concurrency` how many requests an instance of it is given at once.
    """

    name: str
    folder: str
    target: str = ""
    concurrency: int = 8

    @property
    def is_function(self) -> bool:
        return bool(self.target)

    @property
    def server_variables(self) -> dict[str, str]:
        """What a function's server is told, whose threads are else as many as the machine's."""
        return {"THREADS": str(self.concurrency)} if self.is_function else {}

    def command(self, root: Path, port: int) -> list[str]:
        """
        The server's command line; the port is only what it calls itself, the socket is passed.
        """
        directory = root / self.folder / self.name
        if self.is_function:
            arguments = (
                f"--target {self.target} --signature-type http --host 127.0.0.1 --port {port}"
            )
            source = str(directory / "main.py")
            return [_script("functions-framework"), "--source", source, *arguments.split()]
        arguments = "--fd 3 --log-level warning --no-access-log main:app"
        return [_script("uvicorn"), "--app-dir", str(directory), *arguments.split()]


UNITS: Final = (
    Unit(name="lease-broker", folder="services"),
    Unit(name="control-plane", folder="services"),
    Unit(name="register-dataset", folder="functions", target="register_dataset", concurrency=24),
    Unit(name="start-training", folder="functions", target="start_training"),
    Unit(name="revoke-access", folder="functions", target="revoke_access"),
    Unit(name="sweep-leases", folder="functions", target="sweep_leases"),
)


def deploy_units_root() -> Path:
    """
    Where functions/ and services/ lie: the source tree, or the copy that the wheel carries.

    Raises:
        FileNotFoundError: neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package.parents[1], package / "deploy_units"):
        if (root / "functions" / "register-dataset" / "main.py").exists():
            return root
    raise FileNotFoundError("the deploy units (functions/, services/) are not beside the package")


@dataclass(slots=True)
class RunningUnit:
    unit: Unit
    url: str
    log: Path
    process: Fork | None = None
    is_wanted_anew: bool = False
    """It is being ended in order to be started again."""
    num_restarts: int = 0
    keeper: asyncio.Task[None] | None = field(default=None, repr=False)


class Units:
    def __init__(self, directory: Path, ports: Ports) -> None:
        self._directory = directory.resolve()  # each unit works in a folder of its own
        self._root = deploy_units_root()
        self._logs = directory / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._runtime = tempfile.TemporaryDirectory(prefix="sublet-")
        """For sockets that the units' servers make: a socket's path must be short."""
        self._listeners = {unit.name: ports.listen(unit.name) for unit in UNITS}
        self._forks = ForkServer(LIBRARIES)
        self.running: dict[str, RunningUnit] = {}

    def url_of(self, name: str) -> str:
        host, port = self._listeners[name].getsockname()
        return f"http://{host}:{port}"

    async def start(self, environments: Mapping[str, Mapping[str, str]]) -> None:
        """
        Start every unit at once, and return when each has answered.

        Raises:
            RuntimeError: one did not answer in time; names it and its log.
        """
        await self._forks.start(self._directory, self._logs / "units.log")
        for unit in UNITS:
            running = RunningUnit(unit, self.url_of(unit.name), self._logs / f"{unit.name}.log")
            self.running[unit.name] = running
            await self._spawn(running, environments[unit.name])
            running.keeper = asyncio.create_task(self._keep(running, environments[unit.name]))
        await self._answered()

    async def restart(self) -> None:
        """
        Every unit anew, with nothing of what it has remembered; return when each has answered.
        Requests that they are in are answered first, and those that come meanwhile wait.

        Raises:
            RuntimeError: as of `start`.
        """
        ending = []
        for running in self.running.values():
            if running.process and running.process.is_alive:
                running.is_wanted_anew = True
                ending.append(running.process.end(grace=_GRACE))
        await asyncio.gather(*ending)
        await self._answered()

    async def stop(self) -> None:
        for running in self.running.values():
            if running.keeper:
                running.keeper.cancel()
        processes = [r.process for r in self.running.values() if r.process]
        await asyncio.gather(*(process.end(grace=_GRACE) for process in processes))
        await self._forks.stop()
        self._runtime.cleanup()

    async def _spawn(self, running: RunningUnit, environment: Mapping[str, str]) -> None:
        listener = self._listeners[running.unit.name]
        home = self._directory / "homes" / running.unit.name
        runtime = Path(self._runtime.name) / running.unit.name
        for directory in (home, runtime):
            directory.mkdir(parents=True, exist_ok=True)
        running.process = await self._forks.fork(
            running.unit.command(self._root, listener.getsockname()[1]),
            environment={
                "HOME": str(home),
                "XDG_RUNTIME_DIR": str(runtime),
                **running.unit.server_variables,
                **environment,
            },
            directory=home,
            log=running.log,
            listener=listener,
        )

    async def _keep(self, running: RunningUnit, environment: Mapping[str, str]) -> None:
        """Start the unit again whenever it ends, at once at first, then with pauses that grow."""
        loop, failures = asyncio.get_running_loop(), 0
        while True:
            started = loop.time()
            assert running.process is not None
            await running.process.wait()
            if running.is_wanted_anew:
                running.is_wanted_anew = False
            else:
                failures = 0 if loop.time() - started > _LIVED_WELL_S else failures + 1
                await asyncio.sleep(_RESTART_PAUSES_S[min(failures, len(_RESTART_PAUSES_S) - 1)])
                running.num_restarts += 1
            await self._spawn(running, environment)

    async def _answered(self) -> None:
        timeout_s = _READY_WITHIN.total_seconds()
        async with httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
            await asyncio.gather(*(_answers(client, running) for running in self.running.values()))


async def _answers(client: httpx.AsyncClient, running: RunningUnit) -> None:
    """Whatever it answers, it is there to answer."""
    try:
        await client.get(f"{running.url}/healthz")
    except httpx.HTTPError as error:
        raise RuntimeError(
            f"{running.unit.name} did not answer ({type(error).__name__}); its log: {running.log}"
        ) from error


def _script(name: str) -> str:
    """A console script of the environment that this runs in."""
    return str(Path(sys.executable).with_name(name))
