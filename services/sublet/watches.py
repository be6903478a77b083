"""Watches: a prefix of a bucket, and what to train when a file arrives under it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from sublet.errors import InvalidRequest
from sublet.jobs import TrainingSettings
from sublet.machines import Machine
from sublet.names import ModelName, WatchName, check_bucket_name, check_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTemplate:
    """
    What a new file under the prefix is trained into. Models go under `output_prefix` of the same
    bucket.

    Raises:
        InvalidRequest: it is to stop early, and holds out no rows to evaluate on.
    """

    base_model: ModelName
    settings: TrainingSettings
    machine: Machine | None = None
    output_prefix: str = "models/"

    def __post_init__(self) -> None:
        if self.settings.early_stop and not self.settings.eval_auto_carveout:
            raise InvalidRequest("got earlyStop without evalAutoCarveout: nothing to stop by")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """
    Raises:
        InvalidRequest: a prefix does not end in '/', or models would land where files are watched
            for, so that a job would trigger itself for ever.
    """

    name: WatchName
    bucket: str
    prefix: str
    template: TrainingTemplate | None
    is_enabled: bool = True
    created_by: str
    created_at: datetime
    updated_at: datetime | None = None
    enabled_at: datetime | None = None
    """Since when it is on again; None: since it was created."""

    def __post_init__(self) -> None:
        check_bucket_name(self.bucket)
        check_prefix(self.prefix)
        if self.template is None:
            return
        output_prefix = check_prefix(self.template.output_prefix)
        if output_prefix.startswith(self.prefix) or self.prefix.startswith(output_prefix):
            raise InvalidRequest(
                f"watch prefix {self.prefix!r} and output prefix {output_prefix!r} overlap: "
                "each model written would start a training; choose prefixes that do not "
                "contain each other"
            )

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.name.account,
            "bucket": self.bucket,
            "created_at": self.created_at.isoformat(),
        }

    @property
    def is_on_since(self) -> datetime:
        """What came before is none of its files, unless its event is only late."""
        return self.enabled_at or self.created_at

    def turned(self, *, on: bool, now: datetime) -> Self:
        goes_on = on and not self.is_enabled
        return replace(self, is_enabled=on, enabled_at=now if goes_on else self.enabled_at)

    def covers(self, bucket: str, object_name: str) -> bool:
        return self.is_enabled and bucket == self.bucket and object_name.startswith(self.prefix)


def longest_match(watches: Iterable[Watch], bucket: str, object_name: str) -> Watch | None:
    """
    The enabled watch with the longest prefix that covers the object; ties fall to the first name.
    """
    matching = [watch for watch in watches if watch.covers(bucket, object_name)]
    return min(matching, key=lambda watch: (-len(watch.prefix), watch.name), default=None)
