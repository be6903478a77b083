"""
Proxy datasets: a reference to one generation of one object, and what was proved about it. Never a
copy.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sublet.access import AccessReport
from sublet.buckets import BucketIdentity
from sublet.names import (
    AccountName,
    DatasetName,
    Generation,
    LeaseName,
    ObjectVersion,
    WatchName,
)
from sublet.rows import RowReport


class DatasetState(StrEnum):
    """
    Names on the wire. The API knows no failed state: a refused dataset stays UPLOADING, its status
    says why.
    """

    UPLOADING = "UPLOADING"
    READY = "READY"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMetadata:
    """
    What Cloud Storage says of one generation, read again by us: a message about it is only a hint.
    """

    version: ObjectVersion
    size_bytes: int
    crc32c: str
    content_encoding: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedObject:
    """
    A live object as a listing shows it; its name may be one that sublet does not handle.
    """

    name: str
    generation: Generation
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`code` is the name of a gRPC code; OK means nothing is wrong."""

    code: str = "OK"
    message: str = ""


OK: Final = Status()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """
    A customer's object, as checked once. A refused one is kept with its reasons.

    `reads_under` names the lease under which its bytes were read; `bucket_identity` is what
    the bucket must still be whenever a token for it is minted.
    """

    name: DatasetName
    display_name: str
    object: ObjectVersion
    size_bytes: int
    crc32c: str
    finalized_at: datetime
    state: DatasetState
    status: Status
    access: AccessReport
    bucket_identity: BucketIdentity | None
    rows: RowReport | None
    reads_under: LeaseName | None
    watch: WatchName | None
    requested_url: str = ""
    """As the caller gave it: of the file, or of the folder that holds it alone."""
    created_by: str
    created_at: datetime
    updated_at: datetime | None = None

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {
            "account": self.name.account,
            "name": self.name,
            "display_name": self.display_name,
            "created_by": self.created_by,
            "state": self.state,
            "created_at": self.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletedDataset:
    """
    That a watch's dataset was deleted: a late repeat of its event must not bring it back.
    """

    name: DatasetName
    deleted_at: datetime

    @property
    def key(self) -> str:
        return self.name

    def index(self) -> Mapping[str, str]:
        return {"account": self.name.account, "created_at": self.deleted_at.isoformat()}


def dataset_name_for(account: AccountName, version: ObjectVersion) -> DatasetName:
    """
    The natural name of a generation: the same object and generation always give the same dataset.
    """
    stem = version.object.rpartition("/")[2].partition(".")[0].lower()
    readable = re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:40].rstrip("-")
    readable = readable if readable[:1].isalpha() else f"d{readable}"
    return DatasetName.of(account, f"{readable}-{version.digest[:12]}")
