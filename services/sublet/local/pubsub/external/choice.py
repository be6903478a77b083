"""Whose Pub/Sub a stack uses: what was asked for, and what the environment says."""

import json
from collections.abc import Mapping
from pathlib import Path

from sublet.local.pubsub.brokers import OURS
from sublet.local.pubsub.external.emulators import (
    GOOGLES,
    VARIABLE,
    find_google_emulator,
    verify_answers,
)


def choose_pubsub(asked_for: str | None, environ: Mapping[str, str], directory: Path) -> str:
    """
    "sublet", "google", or the HOST:PORT of an emulator that answers.

    Args:
        asked_for: "sublet" or "google"; None to go by PUBSUB_EMULATOR_HOST, which also says which
            of Google's is meant.
        directory: the stack's; the variable may still name its own port, as `sublet local env`
            has set it.

    Raises:
        FailedPrecondition: that emulator is not installed, or does not answer within 2 s.
    """
    address = environ.get(VARIABLE, "")
    if asked_for == OURS or _is_own(address, directory):
        address = ""
    if address:
        verify_answers(address)
        return address
    if asked_for == GOOGLES:
        find_google_emulator()
    return asked_for or OURS


def _is_own(address: str, directory: Path) -> bool:
    path = directory / "ports.json"
    ports = json.loads(path.read_text()) if path.exists() else {}
    return address == f"127.0.0.1:{ports.get('pubsub')}"
