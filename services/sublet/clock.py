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
        self._seen: tuple[int, int] | None = None
        self._offset = timedelta(0)

    @property
    def offset(self) -> timedelta:
        """Read anew only when the file is another one: everything asks for the time, always."""
        try:
            found = os.stat(self._path)  # noqa: PTH116  Path.stat takes twice as long
        except FileNotFoundError:
            return timedelta(0)
        seen = found.st_ino, found.st_mtime_ns
        if seen != self._seen:
            self._offset = timedelta(seconds=float(self._path.read_text()))
            self._seen = seen
        return self._offset

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
