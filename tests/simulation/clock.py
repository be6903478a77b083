"""The one clock of a simulated world."""

from datetime import UTC, datetime

from sublet.memory.clock import MemoryClock


class VirtualClock(MemoryClock):
    """Stands where the scheduler puts it; most moments pass without anybody asking for the time."""

    def __init__(self) -> None:
        super().__init__()
        self._start_s = self._now.timestamp()
        self._told_s = 0.0
        self.passed_s = 0.0

    def now(self) -> datetime:
        if self._told_s != self.passed_s:
            self._told_s = self.passed_s
            self._now = datetime.fromtimestamp(self._start_s + self.passed_s, UTC)
        return self._now
