"""
Google's Firestore emulator. It keeps everything in memory, checks no token and needs no index.

Source: https://cloud.google.com/firestore/docs/emulator
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from sublet.clock import SystemClock
from sublet.errors import TryAgain
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.firestore_registry import FirestoreRegistry
from sublet.gcp.identity import Identity
from sublet.local.emulators import JAVA_OPTIONS, GoogleEmulator, java
from sublet.ports import Clock

DATABASE: Final = "projects/sublet-local/databases/sublet"
_ASKED_FOR: Final = timedelta(seconds=1)
_MAIN: Final = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"


def registry_at(address: str, clock: Clock, **options: timedelta) -> FirestoreRegistry:
    endpoints = Endpoints(firestore_emulator=address)
    return FirestoreRegistry(DATABASE, clock, Identity(endpoints), endpoints, **options)


def _command(jar: Path) -> list[str]:
    """Not the script beside it, which stays in front of the Java process and leaves it behind."""
    return [java(), "-Duser.language=en", *JAVA_OPTIONS, "-cp", str(jar), _MAIN]


def _answers(address: str) -> bool:
    registry = registry_at(address, SystemClock(), answers_within=_ASKED_FOR)
    try:
        registry.outbox(committed_before=datetime.min.replace(tzinfo=UTC), limit=1)
    except TryAgain:
        return False
    return True


GOOGLE_FIRESTORE: Final = GoogleEmulator(
    product="Firestore",
    component="cloud-firestore-emulator",
    package="google-cloud-cli-firestore-emulator",
    file="platform/cloud-firestore-emulator/cloud-firestore-emulator.jar",
    keeps="documents",
    command=_command,
    answers=_answers,
)
