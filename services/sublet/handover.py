"""
What the lease broker and a holder say to each other, over HTTP as JSON. The holder is a trainer, or
the registration that verifies a dataset. Nothing else gives a trainer anything to work with: no
bucket name, no setting and no credential is in its environment.
"""

from dataclasses import dataclass, field
from datetime import datetime

from sublet.buckets import BucketIdentity
from sublet.jobs import PinnedObject, Progress, TrainingSettings
from sublet.losses import Loss
from sublet.names import (
    AccountName,
    DatasetName,
    Email,
    Generation,
    JobName,
    LeaseName,
    ModelName,
    ObjectVersion,
    OutputPrefix,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A bearer secret. It appears in no repr, message, record or log."""

    secret: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenForTraining:
    """POST leases:openForTraining. The answer is the job's living lease, made if there is none."""

    job: JobName


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenForVerification:
    """
    POST leases:openForVerification. `identity` is what the bucket was when its policy was read;
    `reads_beside` lie in it too, and are examined together with `reads`. The answer is the
    Assignment of a lease that the caller holds already.
    """

    account: AccountName
    reads: ObjectVersion
    identity: BucketIdentity
    reads_beside: tuple[ObjectVersion, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoke:
    """
    POST {lease}:revoke. The answer's state says whether the end is proved.

    `silent_since` is the last sign of a holder, where that is why: a later one is a Conflict.
    """

    because: str
    silent_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """
    POST {lease}:claim. A later `attempt` of the same execution takes over from the earlier one.
    """

    execution: str
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """
    What to train. `resume_from` names the newest complete checkpoint under the output prefix, if
    any.

    `format` is that of its rows; `num_rows` is what the registration counted, 0 if it ran short.
    `starts_from` and `evaluation` are read beside the dataset, under the same lease; `base_sha256`
    is of the base model that the former belongs to, if that is known.
    """

    job: JobName
    dataset: DatasetName | None = None
    base_model: ModelName
    output_model: ModelName
    settings: TrainingSettings
    loss: Loss | None = None
    writes: OutputPrefix
    crc32c: str
    size_bytes: int
    num_rows: int
    format: str
    resume_from: str = ""
    warm_start_from: ModelName | None = None
    starts_from: PinnedObject | None = None
    base_sha256: str = ""
    evaluation_dataset: DatasetName | None = None
    evaluation: PinnedObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """
    The answer to a claim: what may be read, until when, with which token. Who verifies is told of
    which data account the token is, and reports it.
    """

    lease: LeaseName
    epoch: int
    reads: ObjectVersion
    reads_beside: tuple[ObjectVersion, ...] = ()
    expires_at: datetime
    heartbeat_every_s: float
    token: AccessToken
    data_account: Email | None = None
    training: TrainingOrder | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """
    POST {lease}:renew. `bytes_read` counts since this holder's claim, of everything it may read.

    `checkpoint` is the object name of the newest complete checkpoint, as `resume_from` gave it or
    newer.
    """

    epoch: int
    bytes_read: int
    wants_token: bool = False
    progress: Progress | None = None
    is_writing_results: bool = False
    checkpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The answer to a heartbeat; `token` is there if one was wanted."""

    expires_at: datetime
    token: AccessToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedAdapter:
    """
    `folder` lies under the output prefix and ends in '/'; the manifest beside it names every file.
    `weights` is its file of tensors, which a later job may start from; `base_sha256` is of the base
    model that they belong to.
    """

    folder: str
    rank: int
    target_modules: tuple[str, ...]
    weights: PinnedObject | None = None
    base_sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """
    POST {lease}:finish. `code` is the name of a gRPC code; `message` says a failure's cause to a
    user. `found` is the generation that a verification met where its lease named none.
    """

    epoch: int
    bytes_read: int
    is_success: bool
    code: str = "OK"
    message: str = ""
    progress: Progress | None = None
    adapter: TrainedAdapter | None = None
    found: Generation | None = None
