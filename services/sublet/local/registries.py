"""Where a stack's records are: in a file of its data directory, or in Google's emulator."""

from pathlib import Path
from typing import Final, Protocol

from sublet.local.emulators import StartedEmulator
from sublet.local.firestore import DATABASE, GOOGLE_FIRESTORE, registry_at
from sublet.local.servers import Ports
from sublet.ports import Clock, Registry
from sublet.sqlite.registry import SqliteRegistry

SQLITE: Final = "sqlite"
FIRESTORE: Final = "firestore"


class LocalRegistry(Protocol):
    """
    `variables` are how a deploy unit finds it, and `remarks` what somebody who works with it should
    know, a line each; both are known once it has started.
    """

    variables: dict[str, str]
    remarks: list[str]

    async def start(self) -> Registry: ...

    async def stop(self) -> None: ...


class SqliteFile:
    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self.variables = {"SUBLET_REGISTRY": f"sqlite:{path.resolve()}"}
        self.remarks: list[str] = []

    async def start(self) -> Registry:
        return SqliteRegistry(self._path, self._clock)

    async def stop(self) -> None:
        """Nothing runs."""


class EmulatedFirestore:
    """Asks nobody who they are, and forgets everything when it stops."""

    def __init__(self, directory: Path, ports: Ports, clock: Clock) -> None:
        self._emulator = StartedEmulator(GOOGLE_FIRESTORE, directory, ports, part="firestore")
        self._clock = clock
        self.variables: dict[str, str] = {}
        self.remarks: list[str] = []

    async def start(self) -> Registry:
        """
        Raises:
            FailedPrecondition: the emulator is not installed, or did not start; says what to do.
        """
        address = await self._emulator.start()
        self.variables = {
            "SUBLET_REGISTRY": f"firestore:{DATABASE}",
            "FIRESTORE_EMULATOR_HOST": address,
        }
        self.remarks = [
            f"Google's emulator at {address}, in place of a file",
            "it has no IAM, and no memory: when this stack ends, all records do (buckets stay)",
        ]
        return registry_at(address, self._clock)

    async def stop(self) -> None:
        await self._emulator.stop()


def registry_of(kind: str, directory: Path, ports: Ports, clock: Clock) -> LocalRegistry:
    if kind == FIRESTORE:
        return EmulatedFirestore(directory, ports, clock)
    return SqliteFile(directory / "registry.db", clock)
