"""
The clocks of real processes. A local cloud moves the time of all its processes at once: they are
given a file that says by how much.
"""

import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

OFFSET_FILE: Final = "SUBLET_CLOCK_OFFSET_FILE"


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class MovableClock:
    """
    The machine's clock, ahead of it by what a file says: seconds, as text. No file, no offset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def offset(self) -> timedelta:
        try:
            return timedelta(seconds=float(self._path.read_text()))
        except FileNotFoundError:
            return timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def advance(self, by: timedelta) -> None:
        """Whoever asks for the time from now on, in any process, gets a later one."""
        new = self._path.with_suffix(".new")
        new.write_text(repr((self.offset + by).total_seconds()))
        new.replace(self._path)


def clock_of(environ: Mapping[str, str] = os.environ) -> SystemClock | MovableClock:
    """The clock of a process with that environment."""
    path = environ.get(OFFSET_FILE)
    return MovableClock(Path(path)) if path else SystemClock()
