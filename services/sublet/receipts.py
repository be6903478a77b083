"""
Receipts: which bytes of a customer were read for a job, by which credential, from when to when, and
the proof that it is refused now. Made from the leases themselves, the registration's own reads
included; how one is signed and handed over is sublet.delivery's.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sublet.accounts import Account
from sublet.bounds import Bound, worst_cases
from sublet.codec import rfc3339
from sublet.datasets import Dataset
from sublet.errors import NotFound
from sublet.jobs import Job
from sublet.leases import DataAccount, Lease, LeaseState, LeaseTerms, MintedToken, Probe
from sublet.names import DatasetName, Email, JobName, LeaseName, ModelName, ObjectVersion
from sublet.ports import Query, Registry, Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    What one lease was used for. `bytes_read` are of all that it reads; `last_possible_use` is when
    its last token was, or will be, dead.
    """

    lease: LeaseName
    purpose: str
    state: LeaseState
    reads: ObjectVersion
    reads_beside: tuple[ObjectVersion, ...]
    writes: str
    bytes_read: int
    credential: Email
    held_by: str
    image: str
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
    num_rows: int
    account: Email
    policy_etag: str
    policy_sha256: str
    output_model: ModelName
    output_url: str
    readings: tuple[Reading, ...]
    bounds: tuple[Bound, ...]

    @property
    def is_refused(self) -> bool:
        """True once every credential that ever read for this job has been seen to be refused."""
        return all(reading.is_refused for reading in self.readings)


def receipt_of(registry: Registry, name: JobName, terms: LeaseTerms | None = None) -> Receipt:
    """
    Raises:
        NotFound: there is no such job, or its dataset was deleted.
    """
    job = registry.get(Job, name)
    dataset = registry.get(Dataset, job.record.dataset) if job else None
    account = registry.get(Account, name.account)
    if job is None or dataset is None or account is None:
        raise NotFound(f"{name} does not exist")
    leases = [
        stored.record
        for stored in registry.find(Lease, Query(where={"account": name.account, "job": name}))
    ]
    held_back = job.record.evaluation_dataset
    evaluation = registry.get(Dataset, held_back) if held_back else None
    leases = [*_verification(registry, dataset), *_verification(registry, evaluation), *leases]
    return Receipt(
        job=name,
        state=job.record.state,
        dataset=dataset.record.name,
        object=job.record.object,
        crc32c=dataset.record.crc32c,
        size_bytes=dataset.record.size_bytes,
        num_rows=dataset.record.rows.num_rows if dataset.record.rows else 0,
        account=account.record.email,
        policy_etag=dataset.record.access.policy_etag,
        policy_sha256=dataset.record.access.policy_sha256,
        output_model=job.record.output_model,
        output_url=job.record.output.url,
        readings=tuple(_reading(lease) for lease in leases),
        bounds=tuple(worst_cases(terms or LeaseTerms(), always_on=_is_always_on(registry, leases))),
    )


def _verification(registry: Registry, dataset: Stored[Dataset] | None) -> list[Lease]:
    """The registration's own lease of a dataset, if there is one."""
    name = dataset.record.reads_under if dataset else None
    found = registry.get(Lease, name) if name else None
    return [found.record] if found else []


def receipt_content(receipt: Receipt, *, signed_at: datetime | None = None) -> dict[str, Any]:
    """As JSON without a fraction: 64-bit numbers are strings, as everywhere on the wire."""
    return _without_unset(
        job=receipt.job,
        state=receipt.state,
        signTime=_time(signed_at),
        dataset=receipt.dataset,
        externalUrl=receipt.object.url,
        externalGeneration=str(receipt.object.generation),
        externalCrc32c=receipt.crc32c,
        externalSizeBytes=str(receipt.size_bytes),
        rowCount=str(receipt.num_rows),
        accountServiceAccount=receipt.account,
        policyEtag=receipt.policy_etag,
        policySha256=receipt.policy_sha256,
        outputModel=receipt.output_model,
        outputUri=receipt.output_url,
        accessIsRefused=receipt.is_refused,
        readings=[_reading_content(reading) for reading in receipt.readings],
        worstCases=[_bound_content(bound) for bound in receipt.bounds],
    )


def _bound_content(bound: Bound) -> dict[str, str]:
    return {
        "when": bound.when,
        "seconds": str(round(bound.at_most.total_seconds())),
        "from": bound.counted_from,
        "because": bound.because,
    }


def token_content(token: MintedToken) -> dict[str, Any]:
    return {
        "sha256": token.sha256,
        "mintTime": rfc3339(token.minted_at),
        "dieTime": rfc3339(token.dies_at),
    }


def probe_content(probe: Probe | None) -> dict[str, Any] | None:
    if probe is None:
        return None
    return {"time": rfc3339(probe.at), "refused": probe.is_refused, "answers": probe.answers}


def _reading_content(reading: Reading) -> dict[str, Any]:
    return _without_unset(
        lease=reading.lease,
        purpose=reading.purpose,
        state=reading.state,
        externalUrl=reading.reads.url,
        externalGeneration=str(reading.reads.generation),
        readsBeside=[
            {"externalUrl": one.url, "externalGeneration": str(one.generation)}
            for one in reading.reads_beside
        ]
        or None,
        outputUri=reading.writes or None,
        bytesRead=str(reading.bytes_read),
        credential=reading.credential,
        heldBy=reading.held_by,
        image=reading.image or None,
        numTokens=reading.num_tokens,
        tokens=[token_content(token) for token in reading.tokens],
        startTime=_time(reading.started_at),
        mintingStopTime=_time(reading.minting_stopped_at),
        mintingStopReason=reading.minting_stopped_because or None,
        lastPossibleUse=_time(reading.last_possible_use),
        refused=reading.is_refused,
        proof=probe_content(reading.proof),
    )


def _time(time: datetime | None) -> str | None:
    return rfc3339(time) if time else None


def _without_unset(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  JSON is any
    return {name: value for name, value in fields.items() if value is not None}


def _is_always_on(registry: Registry, leases: list[Lease]) -> bool:
    """As it was when they ended; for one that lives, as it is now."""
    using = (
        registry.get(DataAccount, DataAccount.key_of(lease.data_account))
        for lease in leases
        if lease.is_living
    )
    living = (account.record.always_on for account in using if account)
    return any(lease.always_on for lease in leases) or any(living)


def _reading(lease: Lease) -> Reading:
    holder = lease.holder
    return Reading(
        lease=lease.name,
        purpose=lease.purpose,
        state=lease.state,
        reads=lease.reads,
        reads_beside=lease.reads_beside,
        writes=lease.writes.url if lease.writes else "",
        bytes_read=lease.bytes_read,
        credential=lease.data_account,
        held_by=f"{holder.identity} in {holder.execution}" if holder else "",
        image=lease.image,
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
