"""
Where an emulator comes from: one that is started from the gcloud SDK, in a session of its own that
ends with ours; or one that runs already, which is only looked for.

Source: https://cloud.google.com/pubsub/docs/emulator
"""

import asyncio
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.processes import end, spawn
from sublet.local.pubsub.resources import is_loopback
from sublet.local.servers import Ports

VARIABLE: Final = "PUBSUB_EMULATOR_HOST"
_SCRIPT: Final = "platform/pubsub-emulator/bin/cloud-pubsub-emulator"
_ANSWERS_WITHIN_S: Final = 1.5
_STARTS_WITHIN_S: Final = 60.0
_POLL_S: Final = 0.05
_GRACE: Final = timedelta(seconds=1)
"""It keeps nothing that a longer one could save."""

_JAVA_OPTIONS: Final = "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
"""Half the memory and 0.7 s less to start; it is a laptop's broker, not a server's."""


GOOGLES: Final = "google"


class Emulator(Protocol):
    async def start(self) -> str:
        """Its address, host:port, once it answers."""

    async def stop(self) -> None: ...


class GoogleEmulator:
    """Google's own, started for this stack alone; `directory` is for its log."""

    def __init__(self, directory: Path, ports: Ports) -> None:
        self._directory = directory
        self._log = directory / "logs" / "google-pubsub-emulator.log"
        self._ports = ports
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """
        Raises:
            FailedPrecondition: it is not installed, or did not start; says what to do.
        """
        script = find_google_emulator()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._ports.reserve("pubsub") as reserved:
            host, port = reserved.getsockname()
        java_home = os.environ.get("JAVA_HOME")
        process = self._process = await spawn(
            [str(script), f"--host={host}", f"--port={port}"],
            environment={
                "HOME": str(self._directory.resolve()),
                "JAVA_OPTS": _JAVA_OPTIONS,
                **({"JAVA_HOME": java_home} if java_home else {}),
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
        deadline = asyncio.get_running_loop().time() + _STARTS_WITHIN_S
        while not await asyncio.to_thread(_answers, address):
            if process.returncode is not None:
                raise FailedPrecondition(
                    f"Google's Pub/Sub emulator ended with {process.returncode} "
                    f"instead of answering at {address}; its log: {self._log}"
                )
            if asyncio.get_running_loop().time() > deadline:
                raise FailedPrecondition(
                    f"Google's Pub/Sub emulator did not answer at {address} within "
                    f"{_STARTS_WITHIN_S:g} s; its log: {self._log}"
                )
            await asyncio.sleep(_POLL_S)

    async def _report_end(self, process: asyncio.subprocess.Process) -> None:
        """Its topics went with it, so there is nothing to start again: say so at once."""
        code = await process.wait()
        message = f"Google's Pub/Sub emulator ended with {code}: start the stack again"
        asyncio.get_running_loop().call_exception_handler({"message": message})


class RunningEmulator:
    """One that somebody else has started, and stops; HOST:PORT."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def start(self) -> str:
        """
        Raises:
            FailedPrecondition: nothing that speaks Pub/Sub answers there.
        """
        await asyncio.to_thread(verify_answers, self._address)
        return self._address

    async def stop(self) -> None:
        """It is not ours to stop."""


def emulator_of(pubsub: str, directory: Path, ports: Ports) -> Emulator:
    """What `pubsub` names: "google", to be started; or HOST:PORT, to be found."""
    return GoogleEmulator(directory, ports) if pubsub == GOOGLES else RunningEmulator(pubsub)


def find_google_emulator() -> Path:
    """
    The script that starts Google's emulator: it becomes the Java process, so that a signal to it is
    one to that process. (`gcloud beta emulators pubsub start` leaves the Java process behind.)

    Raises:
        FailedPrecondition: gcloud, the emulator or Java is missing; says how to install it.
    """
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise FailedPrecondition(
            "Google's Pub/Sub emulator comes with the gcloud CLI, and there is no gcloud on PATH; "
            "install it (https://cloud.google.com/sdk/docs/install), then run: "
            "gcloud components install pubsub-emulator"
        )
    script = Path(gcloud).resolve().parents[1] / _SCRIPT
    if not script.exists():
        raise FailedPrecondition(
            f"the gcloud CLI at {gcloud} has no Pub/Sub emulator (expected {script}); run: "
            "gcloud components install pubsub-emulator "
            "(or: apt-get install google-cloud-cli-pubsub-emulator)"
        )
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        raise FailedPrecondition(
            "Google's Pub/Sub emulator needs Java: no java on PATH, and JAVA_HOME is not set; "
            "install a Java runtime of version 11 or newer"
        )
    return script


def verify_answers(address: str) -> None:
    """
    Raises:
        InvalidRequest: it is no address of this machine.
        FailedPrecondition: nothing that speaks Pub/Sub answers there within 1.5 s.
    """
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not is_loopback(host):
        raise InvalidRequest(
            f"got {VARIABLE}={address!r}; expected HOST:PORT of this machine, such as "
            "127.0.0.1:8085 (pushes go to its loopback, and to nowhere else)"
        )
    if not _answers(address):
        raise FailedPrecondition(
            f"no Pub/Sub answers at {VARIABLE}={address}; start that emulator, "
            f"or unset {VARIABLE} to use sublet's own Pub/Sub"
        )


def _answers(address: str) -> bool:
    """No retry: a client of Google's would go on for ten minutes."""
    with grpc.insecure_channel(address) as channel:
        client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
        try:
            client.list_topics(
                project="projects/sublet-local", timeout=_ANSWERS_WITHIN_S, retry=None
            )
        except (GoogleAPICallError, grpc.RpcError):
            return False
    return True
