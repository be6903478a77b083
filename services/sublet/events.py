"""
Facts and requests that travel between the parts. Each may be delivered many times, late and out of
order; each is only a hint, and whoever receives one reads the record it names. docs/events.md lists
them.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final, Self

from sublet.names import (
    AccountName,
    DatasetName,
    Generation,
    JobName,
    LeaseName,
    ModelName,
    ObjectVersion,
    WatchName,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFinalized:
    """
    Cloud Storage says that an object was written. Nothing in it is believed but the name to look
    at.

    `account` is set where the channel itself belongs to one account (its own topic), never from the
    payload; None means: any account that watches the bucket.
    """

    bucket: str
    object: str
    generation: Generation
    account: AccountName | None

    @classmethod
    def of(cls, version: ObjectVersion, account: AccountName | None) -> Self:
        return cls(
            bucket=version.bucket,
            object=version.object,
            generation=version.generation,
            account=account,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFound:
    """
    A watched prefix holds an object that no event told of. It names the account, so only the
    sweep's own topic may carry it.
    """

    type: ClassVar = "dev.sublet.object.found.v1"
    account: AccountName
    object: ObjectVersion
    found_at: datetime

    @property
    def subject(self) -> str:
        return self.object.url


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRegistered:
    """A customer's object passed the access check. Published once for each generation."""

    type: ClassVar = "dev.sublet.dataset.registered.v1"
    dataset: DatasetName
    object: ObjectVersion
    watch: WatchName | None
    registered_at: datetime

    @property
    def subject(self) -> str:
        return self.dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRefused:
    """A customer's object did not pass; the dataset keeps the reasons, this only names it."""

    type: ClassVar = "dev.sublet.dataset.refused.v1"
    dataset: DatasetName
    object: ObjectVersion
    refused_at: datetime

    @property
    def subject(self) -> str:
        return self.dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequested:
    """A job exists and wants an execution."""

    type: ClassVar = "dev.sublet.training.requested.v1"
    job: JobName
    requested_at: datetime

    @property
    def subject(self) -> str:
        return self.job


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFinished:
    """A job is over, well or not, and its lease wants its end proved. `state` is the job's."""

    type: ClassVar = "dev.sublet.training.finished.v1"
    job: JobName
    lease: LeaseName | None
    model: ModelName | None
    state: str
    finished_at: datetime

    @property
    def subject(self) -> str:
        return self.job


Fact = ObjectFound | DatasetRegistered | DatasetRefused | TrainingRequested | TrainingFinished
FACTS: Final[tuple[type[Fact], ...]] = (
    ObjectFound,
    DatasetRegistered,
    DatasetRefused,
    TrainingRequested,
    TrainingFinished,
)
