"""
Where an emulator comes from: one that is started from the gcloud SDK, in a session of its own that
ends with ours; or one that runs already, which is only looked for.

Source: https://cloud.google.com/pubsub/docs/emulator
"""

import asyncio
from pathlib import Path
from typing import Final, Protocol

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.pubsub_v1 import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.local.emulators import JAVA_OPTIONS, GoogleEmulator, StartedEmulator
from sublet.local.pubsub.resources import is_loopback
from sublet.local.servers import Ports

VARIABLE: Final = "PUBSUB_EMULATOR_HOST"
GOOGLES: Final = "google"
_ANSWERS_WITHIN_S: Final = 1.5


class Emulator(Protocol):
    async def start(self) -> str:
        """Its address, host:port, once it answers."""

    async def stop(self) -> None: ...


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
    if pubsub == GOOGLES:
        return StartedEmulator(GOOGLE_PUBSUB, directory, ports, part="pubsub")
    return RunningEmulator(pubsub)


def find_google_emulator() -> Path:
    """
    The script that starts Google's emulator: it becomes the Java process. (`gcloud beta emulators
    pubsub start` leaves the Java process behind.)

    Raises:
        FailedPrecondition: gcloud, the emulator or Java is missing; says how to install it.
    """
    return GOOGLE_PUBSUB.find()


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


GOOGLE_PUBSUB: Final = GoogleEmulator(
    product="Pub/Sub",
    component="pubsub-emulator",
    package="google-cloud-cli-pubsub-emulator",
    file="platform/pubsub-emulator/bin/cloud-pubsub-emulator",
    keeps="topics",
    command=lambda script: [str(script)],
    answers=_answers,
    environment={"JAVA_OPTS": " ".join(JAVA_OPTIONS)},
)
