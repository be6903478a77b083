"""Google's Firestore emulator, started once for the session, and registries in it."""

import asyncio
import threading
from itertools import count
from pathlib import Path

from sublet.gcp.endpoints import Endpoints
from sublet.gcp.firestore_registry import FirestoreRegistry
from sublet.gcp.identity import Identity
from sublet.local.emulators import StartedEmulator
from sublet.local.firestore import GOOGLE_FIRESTORE
from sublet.local.servers import Ports
from sublet.ports import Clock


class RunningFirestore:
    def __init__(self, directory: Path) -> None:
        self._numbers = count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        ports = Ports(directory / "ports.json", {})
        self._emulator = StartedEmulator(GOOGLE_FIRESTORE, directory, ports, part="firestore")
        self.address = self._run(self._emulator.start())

    def stop(self) -> None:
        self._run(self._emulator.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def database(self) -> str:
        """One that nobody else has."""
        return f"projects/sublet-test/databases/test-{next(self._numbers)}"

    def registry(
        self, clock: Clock, database: str | None = None, address: str | None = None
    ) -> FirestoreRegistry:
        endpoints = Endpoints(firestore_emulator=address or self.address)
        name = database or self.database()
        return FirestoreRegistry(name, clock, Identity(endpoints), endpoints)

    def _run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(90)
