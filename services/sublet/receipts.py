"""
Receipts: which bytes of a customer were read for a job, by which credential, from when to when, and
the proof that it is refused now. Made from the leases themselves, the registration's own reads
included.
"""

from dataclasses import dataclass
from datetime import datetime

from sublet.datasets import Dataset
from sublet.errors import NotFound
from sublet.jobs import Job
from sublet.leases import Lease, LeaseState, MintedToken, Probe
from sublet.names import DatasetName, Email, JobName, LeaseName, ModelName, ObjectVersion
from sublet.ports import Query, Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What one lease was used for. `last_possible_use` is when its last token was, or will be, dead.
    """

    lease: LeaseName
    purpose: str
    state: LeaseState
    reads: ObjectVersion
    writes: str
    bytes_read: int
    credential: Email
    held_by: str
    tokens: tuple[MintedToken, ...]
    num_tokens: int
    started_at: datetime | None
    minting_stopped_at: datetime | None
    minting_stopped_because: str
    last_possible_use: datetime | None
    proof: Probe | None

    @property
    def is_refused(self) -> bool:
        return self.state is LeaseState.REVOKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    job: JobName
    state: str
    dataset: DatasetName
    object: ObjectVersion
    crc32c: str
    size_bytes: int
    output_model: ModelName
    output_url: str
    readings: tuple[Reading, ...]

    @property
    def is_refused(self) -> bool:
        """True once every credential that ever read for this job has been seen to be refused."""
        return all(reading.is_refused for reading in self.readings)


def receipt_of(registry: Registry, name: JobName) -> Receipt:
    """
    Raises:
        NotFound: there is no such job, or its dataset was deleted.
    """
    job = registry.get(Job, name)
    dataset = registry.get(Dataset, job.record.dataset) if job else None
    if job is None or dataset is None:
        raise NotFound(f"{name} does not exist")
    leases = [
        stored.record
        for stored in registry.find(Lease, Query(where={"account": name.account, "job": name}))
    ]
    if dataset.record.reads_under:
        verification = registry.get(Lease, dataset.record.reads_under)
        leases = [verification.record, *leases] if verification else leases
    return Receipt(
        job=name,
        state=job.record.state,
        dataset=dataset.record.name,
        object=job.record.object,
        crc32c=dataset.record.crc32c,
        size_bytes=dataset.record.size_bytes,
        output_model=job.record.output_model,
        output_url=job.record.output.url,
        readings=tuple(_reading(lease) for lease in leases),
    )


def _reading(lease: Lease) -> Reading:
    holder = lease.holder
    return Reading(
        lease=lease.name,
        purpose=lease.purpose,
        state=lease.state,
        reads=lease.reads,
        writes=lease.writes.url if lease.writes else "",
        bytes_read=lease.bytes_read,
        credential=lease.data_account,
        held_by=f"{holder.identity} in {holder.execution}" if holder else "",
        tokens=lease.tokens,
        num_tokens=lease.num_tokens,
        started_at=lease.claimed_at,
        minting_stopped_at=lease.revoked_at,
        minting_stopped_because=lease.revoked_because,
        last_possible_use=_last_possible_use(lease),
        proof=lease.last_probe,
    )


def _last_possible_use(lease: Lease) -> datetime | None:
    """The refused probe, if there is one; else the end of the last token's life."""
    if lease.state is LeaseState.REVOKED and lease.last_probe:
        return lease.last_probe.at
    return lease.dies_at
