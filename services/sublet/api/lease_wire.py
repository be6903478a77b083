"""Leases, receipts and audit entries as JSON: the account of every access, under names of ours."""

from sublet.api.wire import Json, time_to_wire, without_unset
from sublet.audit import AuditEntry
from sublet.codec import rfc3339
from sublet.leases import Lease, MintedToken, Probe
from sublet.receipts import Reading, Receipt


def lease_to_wire(lease: Lease) -> Json:
    holder = lease.holder
    return without_unset(
        name=lease.name,
        purpose=lease.purpose,
        state=lease.state,
        job=lease.job,
        externalUrl=lease.reads.url,
        externalGeneration=str(lease.reads.generation),
        outputUri=lease.writes.url if lease.writes else None,
        dataServiceAccount=lease.data_account,
        epoch=lease.epoch,
        holder={"identity": holder.identity, "execution": holder.execution} if holder else None,
        bytesRead=str(lease.bytes_read),
        numTokens=lease.num_tokens,
        tokens=[_token_to_wire(token) for token in lease.tokens],
        createTime=time_to_wire(lease.created_at),
        claimTime=time_to_wire(lease.claimed_at),
        heartbeatTime=time_to_wire(lease.heartbeat_at),
        expireTime=time_to_wire(lease.expires_at),
        revokeTime=time_to_wire(lease.revoked_at),
        revokeReason=lease.revoked_because or None,
        lastTokenDies=time_to_wire(lease.dies_at),
        endTime=time_to_wire(lease.ended_at),
        lastProbe=_probe_to_wire(lease.last_probe),
    )


def receipt_to_wire(receipt: Receipt) -> Json:
    return {
        "job": receipt.job,
        "state": receipt.state,
        "dataset": receipt.dataset,
        "externalUrl": receipt.object.url,
        "externalGeneration": str(receipt.object.generation),
        "externalCrc32c": receipt.crc32c,
        "externalSizeBytes": str(receipt.size_bytes),
        "outputModel": receipt.output_model,
        "outputUri": receipt.output_url,
        "accessIsRefused": receipt.is_refused,
        "readings": [_reading_to_wire(reading) for reading in receipt.readings],
    }


def _reading_to_wire(reading: Reading) -> Json:
    return without_unset(
        lease=reading.lease,
        purpose=reading.purpose,
        state=reading.state,
        externalUrl=reading.reads.url,
        externalGeneration=str(reading.reads.generation),
        outputUri=reading.writes or None,
        bytesRead=str(reading.bytes_read),
        credential=reading.credential,
        heldBy=reading.held_by,
        numTokens=reading.num_tokens,
        tokens=[_token_to_wire(token) for token in reading.tokens],
        startTime=time_to_wire(reading.started_at),
        mintingStopTime=time_to_wire(reading.minting_stopped_at),
        mintingStopReason=reading.minting_stopped_because or None,
        lastPossibleUse=time_to_wire(reading.last_possible_use),
        refused=reading.is_refused,
        proof=_probe_to_wire(reading.proof),
    )


def _token_to_wire(token: MintedToken) -> Json:
    return {
        "sha256": token.sha256,
        "mintTime": rfc3339(token.minted_at),
        "dieTime": rfc3339(token.dies_at),
    }


def _probe_to_wire(probe: Probe | None) -> Json | None:
    if probe is None:
        return None
    return {"time": rfc3339(probe.at), "refused": probe.is_refused, "answers": probe.answers}


def audit_entry_to_wire(entry: AuditEntry) -> Json:
    """With every field that its hash is made of, so that whoever has the list can check it."""
    return {
        "id": f"{entry.sequence:012d}",
        "sequence": str(entry.sequence),
        "timestamp": rfc3339(entry.at),
        "principal": entry.principal,
        "method": entry.action.method,
        "resource": entry.action.resource,
        "message": entry.action.message,
        "status": {"code": entry.action.code, "message": ""},
        "isAdminAction": entry.action.method.endswith(("User", "ApiKey")),
        "previousSha256": entry.previous_sha256,
        "sha256": entry.sha256,
    }
