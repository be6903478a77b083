"""
Events that nothing can mend: acknowledged, so that they never come again, and counted, so that they
show.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Self

from sublet.errors import LostRace
from sublet.ports import Clock, Registry, create


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """
    How often one unit refused events for one kind of reason; the newest by its hash, never its
    text.
    """

    unit: str
    kind: str
    count: int
    first_at: datetime
    last_at: datetime
    last_reason: str
    last_sha256: str
    last_size_bytes: int

    @property
    def key(self) -> str:
        return f"{self.unit}/{self.kind}"

    def index(self) -> Mapping[str, str]:
        return {"unit": self.unit}

    def and_another(self, other: Self) -> Self:
        return replace(other, count=self.count + 1, first_at=self.first_at)


def quarantine(
    registry: Registry, clock: Clock, *, unit: str, kind: str, reason: str, body: bytes
) -> Quarantine:
    """
    Count one event. One record for each unit and kind, so that a flood cannot fill the registry.
    """
    now = clock.now()
    seen = Quarantine(
        unit=unit,
        kind=kind,
        count=1,
        first_at=now,
        last_at=now,
        last_reason=reason[:500],
        last_sha256=sha256(body).hexdigest(),
        last_size_bytes=len(body),
    )
    while True:
        stored = registry.get(Quarantine, seen.key)
        counted = stored.record.and_another(seen) if stored else seen
        try:
            registry.commit(stored.replaced_by(counted) if stored else create(counted))
        except LostRace:
            continue
        return counted
