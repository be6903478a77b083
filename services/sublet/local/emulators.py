"""
Google's own emulators: found in the gcloud SDK, and started in a session of their own that ends
with ours.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from sublet.errors import FailedPrecondition
from sublet.local.processes import end, spawn
from sublet.local.servers import Ports

JAVA_OPTIONS: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Half the memory and 0.7 s less to start; it is a laptop's, not a server's."""
_STARTS_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.05
_GRACE: Final = timedelta(seconds=1)
"""They keep nothing that a longer one could save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoogleEmulator:
    """
    One of the SDK's. `command` runs its `file`, and must become the Java process, so that a signal
    to it is one to that process; `keeps` names what is lost when it ends.
    """

    product: str
    component: str
    package: str
    file: str
    keeps: str
    command: Callable[[Path], Sequence[str]]
    answers: Callable[[str], bool]
    environment: Mapping[str, str] = field(default_factory=dict)

    def find(self) -> Path:
        """
        Raises:
            FailedPrecondition: gcloud, the emulator or Java is missing; says how to install it.
        """
        gcloud = shutil.which("gcloud")
        if gcloud is None:
            raise FailedPrecondition(
                f"Google's {self.product} emulator comes with the gcloud CLI, and there is no "
                "gcloud on PATH; install it (https://cloud.google.com/sdk/docs/install), then run: "
                f"gcloud components install {self.component}"
            )
        file = Path(gcloud).resolve().parents[1] / self.file
        if not file.exists():
            raise FailedPrecondition(
                f"the gcloud CLI at {gcloud} has no {self.product} emulator (expected {file}); "
                f"run: gcloud components install {self.component} "
                f"(or: apt-get install {self.package})"
            )
        if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
            raise FailedPrecondition(
                f"Google's {self.product} emulator needs Java: no java on PATH, and JAVA_HOME is "
                "not set; install a Java runtime of version 11 or newer"
            )
        return file


def java() -> str:
    home = os.environ.get("JAVA_HOME")
    return str(Path(home) / "bin" / "java") if home else "java"


class StartedEmulator:
    """Started for this process alone; `directory` is for its log."""

    def __init__(
        self, emulator: GoogleEmulator, directory: Path, ports: Ports, *, part: str
    ) -> None:
        self._emulator = emulator
        self._directory = directory
        self._log = directory / "logs" / f"google-{emulator.component}.log"
        self._ports = ports
        self._part = part
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """
        Its address, host:port, once it answers.

        Raises:
            FailedPrecondition: it is not installed, or did not start; says what to do.
        """
        file = self._emulator.find()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._ports.reserve(self._part) as reserved:
            host, port = reserved.getsockname()
        home = os.environ.get("JAVA_HOME")
        process = self._process = await spawn(
            [*self._emulator.command(file), f"--host={host}", f"--port={port}"],
            environment={
                "HOME": str(self._directory.resolve()),
                **self._emulator.environment,
                **({"JAVA_HOME": home} if home else {}),
            },
            directory=self._directory,
            log=self._log,
        )
        address = f"{host}:{port}"
        await self._answered(process, address)
        self._watch = asyncio.create_task(self._report_end(process))
        return address

    async def stop(self) -> None:
        if self._watch:
            self._watch.cancel()
        if self._process:
            await end(self._process, grace=_GRACE)

    async def _answered(self, process: asyncio.subprocess.Process, address: str) -> None:
        name = f"Google's {self._emulator.product} emulator"
        deadline = asyncio.get_running_loop().time() + _STARTS_WITHIN_S
        while not await asyncio.to_thread(self._emulator.answers, address):
            if process.returncode is not None:
                raise FailedPrecondition(
                    f"{name} ended with {process.returncode} "
                    f"instead of answering at {address}; its log: {self._log}"
                )
            if asyncio.get_running_loop().time() > deadline:
                raise FailedPrecondition(
                    f"{name} did not answer at {address} within {_STARTS_WITHIN_S:g} s; "
                    f"its log: {self._log}"
                )
            await asyncio.sleep(_POLL_S)

    async def _report_end(self, process: asyncio.subprocess.Process) -> None:
        """What it kept went with it, so there is nothing to start again: say so at once."""
        code = await process.wait()
        message = (
            f"Google's {self._emulator.product} emulator ended with {code}, and its "
            f"{self._emulator.keeps} with it: start the stack again"
        )
        asyncio.get_running_loop().call_exception_handler({"message": message})
