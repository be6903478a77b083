"""Leases and audit entries as JSON: the account of every access, under names of ours."""

from sublet.api.answers import Answer, Int64, StatusAnswer, Timestamp, time_to_wire
from sublet.audit import AuditEntry
from sublet.codec import rfc3339
from sublet.leases import Lease, LeaseState, MintedToken, Probe, Purpose


class TokenAnswer(Answer, kw_only=True):
    """Of a token that was minted: its hash, which opens nothing."""

    sha256: str
    mint_time: Timestamp
    die_time: Timestamp

    @classmethod
    def of(cls, token: MintedToken) -> "TokenAnswer":
        return cls(
            sha256=token.sha256,
            mint_time=rfc3339(token.minted_at),
            die_time=rfc3339(token.dies_at),
        )


class ProbeAnswer(Answer, kw_only=True):
    time: Timestamp
    refused: bool
    answers: str

    @classmethod
    def of(cls, probe: Probe | None) -> "ProbeAnswer | None":
        if probe is None:
            return None
        return cls(time=rfc3339(probe.at), refused=probe.is_refused, answers=probe.answers)


class HolderAnswer(Answer, kw_only=True):
    identity: str
    execution: str


class LeaseAnswer(Answer, kw_only=True):
    name: str
    purpose: Purpose
    state: LeaseState
    job: str | None = None
    external_url: str
    external_generation: Int64
    reads_beside: list[str]
    output_uri: str | None = None
    data_service_account: str
    epoch: int
    holder: HolderAnswer | None = None
    bytes_read: Int64
    num_tokens: int
    tokens: list[TokenAnswer]
    create_time: Timestamp
    claim_time: Timestamp | None = None
    heartbeat_time: Timestamp | None = None
    expire_time: Timestamp
    revoke_time: Timestamp | None = None
    revoke_reason: str | None = None
    last_token_dies: Timestamp | None = None
    end_time: Timestamp | None = None
    last_probe: ProbeAnswer | None = None

    @classmethod
    def of(cls, lease: Lease) -> "LeaseAnswer":
        holder = lease.holder
        return cls(
            name=lease.name,
            purpose=lease.purpose,
            state=lease.state,
            job=lease.job,
            external_url=lease.reads.url,
            external_generation=str(lease.reads.generation),
            reads_beside=[str(version) for version in lease.reads_beside],
            output_uri=lease.writes.url if lease.writes else None,
            data_service_account=lease.data_account,
            epoch=lease.epoch,
            holder=HolderAnswer(identity=holder.identity, execution=holder.execution)
            if holder
            else None,
            bytes_read=str(lease.bytes_read),
            num_tokens=lease.num_tokens,
            tokens=[TokenAnswer.of(token) for token in lease.tokens],
            create_time=rfc3339(lease.created_at),
            claim_time=time_to_wire(lease.claimed_at),
            heartbeat_time=time_to_wire(lease.heartbeat_at),
            expire_time=rfc3339(lease.expires_at),
            revoke_time=time_to_wire(lease.revoked_at),
            revoke_reason=lease.revoked_because or None,
            last_token_dies=time_to_wire(lease.dies_at),
            end_time=time_to_wire(lease.ended_at),
            last_probe=ProbeAnswer.of(lease.last_probe),
        )


class AuditEntryAnswer(Answer, kw_only=True):
    """With every field that its hash is made of, so that whoever has the list can check it."""

    id: str
    sequence: Int64
    timestamp: Timestamp
    principal: str
    method: str
    resource: str
    message: str
    status: StatusAnswer
    is_admin_action: bool
    previous_sha256: str
    sha256: str

    @classmethod
    def of(cls, entry: AuditEntry) -> "AuditEntryAnswer":
        return cls(
            id=f"{entry.sequence:012d}",
            sequence=str(entry.sequence),
            timestamp=rfc3339(entry.at),
            principal=entry.principal,
            method=entry.action.method,
            resource=entry.action.resource,
            message=entry.action.message,
            status=StatusAnswer(code=entry.action.code, message=""),
            is_admin_action=entry.action.method.endswith(("User", "ApiKey")),
            previous_sha256=entry.previous_sha256,
            sha256=entry.sha256,
        )
