"""
JSON of the API: camelCase out, camelCase or snake_case in; int64 as strings, times in RFC 3339,
null as if it were not there. What Fireworks' own types do not have rides along under names of ours.

Source: https://protobuf.dev/programming-guides/json
"""

import re
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from sublet.access import AccessReport, Finding
from sublet.accounts import Account
from sublet.codec import rfc3339
from sublet.datasets import Dataset, Status
from sublet.errors import InvalidRequest
from sublet.jobs import Job
from sublet.leases import Lease, LeaseTerms, MintedToken, Probe
from sublet.models import Model
from sublet.receipts import Reading, Receipt
from sublet.rows import RowReport
from sublet.watches import Watch

T = TypeVar("T")
Json = dict[str, Any]


def read(body: object, kind: type[T]) -> T:
    """
    Read a request's body; unknown fields are ignored, since newer clients send more.

    Raises:
        InvalidRequest: a field is missing or of the wrong type; names it.
    """
    try:
        return msgspec.convert(_snake(body), kind, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None


def _snake(value: object) -> object:
    if isinstance(value, dict):
        return {
            re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", str(key)): _snake(
                item
            )
            for key, item in value.items()
            if item is not None
        }
    return [_snake(item) for item in value] if isinstance(value, list) else value


def _without_unset(**fields: Any) -> Json:  # noqa: ANN401
    return {key: value for key, value in fields.items() if value is not None}


def _time(value: datetime | None) -> str | None:
    return None if value is None else rfc3339(value)


def _status(status: Status) -> Json:
    return {"code": status.code, "message": status.message}


def account_to_wire(account: Account, verifier: str) -> Json:
    """`email` is the address to grant on a bucket; the other two principals ride along."""
    return {
        "name": account.name,
        "displayName": account.display_name,
        "email": account.email,
        "state": "READY",
        "status": {"code": "OK", "message": ""},
        "suspendState": "UNSUSPENDED",
        "createTime": rfc3339(account.created_at),
        "updateTime": rfc3339(account.created_at),
        "controlPlaneServiceAccount": verifier,
        "dataServiceAccounts": list(account.data_accounts),
        "projectNumbers": [str(number) for number in account.project_numbers],
    }


def dataset_to_wire(dataset: Dataset) -> Json:
    return _without_unset(
        name=dataset.name,
        displayName=dataset.display_name,
        createTime=_time(dataset.created_at),
        updateTime=_time(dataset.created_at),
        state=dataset.state,
        status=_status(dataset.status),
        exampleCount=str(dataset.rows.num_rows) if dataset.rows else "0",
        externalUrl=dataset.object.url,
        format=(dataset.rows and dataset.rows.format) or "FORMAT_UNSPECIFIED",
        createdBy=dataset.created_by,
        externalGeneration=str(dataset.object.generation),
        externalCrc32c=dataset.crc32c,
        externalSizeBytes=str(dataset.size_bytes),
        objectFinalizeTime=_time(dataset.finalized_at),
        accessCheck=_access_to_wire(dataset.access),
        rowCheck=_rows_to_wire(dataset.rows) if dataset.rows else None,
        lease=dataset.reads_under,
        watch=dataset.watch,
    )


def _access_to_wire(report: AccessReport) -> Json:
    return {
        "checkTime": rfc3339(report.checked_at),
        "holdsUntil": rfc3339(report.holds_until),
        "policyEtag": report.policy_etag,
        "facts": [_finding_to_wire(finding) for finding in report.findings],
    }


def _finding_to_wire(finding: Finding) -> Json:
    return {
        "fact": finding.fact,
        "rule": finding.rule,
        "verdict": finding.verdict,
        "evidence": finding.evidence,
        "principal": finding.principal,
        "fix": finding.fix,
        "refuses": finding.refuses,
    }


def _rows_to_wire(rows: RowReport) -> Json:
    problems = [
        {"line": str(p.line), "offset": str(p.offset), "reason": p.reason} for p in rows.problems
    ]
    return {
        "numRows": str(rows.num_rows),
        "numBytes": str(rows.num_bytes),
        "numProblems": str(rows.num_problems),
        "problems": problems,
        "isComplete": rows.is_complete,
    }


def job_to_wire(job: Job, now: datetime, terms: LeaseTerms) -> Json:
    settings, progress = job.settings, job.progress
    age_s = (now - job.heartbeat_at).total_seconds() if job.heartbeat_at else None
    status = _status(job.status)
    if age_s and not job.is_over and age_s > terms.holder_is_lost_after.total_seconds():
        status["message"] = f"no heartbeat of the trainer for {age_s:.0f} s"
    return _without_unset(
        name=job.name,
        displayName=job.display_name,
        createTime=_time(job.created_at),
        updateTime=_time(job.completed_at or job.heartbeat_at or job.created_at),
        completedTime=_time(job.completed_at),
        state=job.state,
        status=status,
        dataset=job.dataset,
        baseModel=job.base_model,
        outputModel=job.output_model,
        createdBy=job.created_by,
        epochs=settings.epochs,
        learningRate=settings.learning_rate,
        loraRank=settings.lora_rank,
        maxContextLength=settings.max_context_length,
        batchSize=settings.batch_size,
        learningRateWarmupSteps=settings.learning_rate_warmup_steps,
        optimizerWeightDecay=settings.weight_decay,
        jobProgress={"percent": progress.percent, "epoch": int(progress.epoch)},
        step=progress.step,
        numSteps=progress.num_steps,
        loss=progress.loss,
        tokensPerSecond=progress.tokens_per_s,
        etaSeconds=progress.eta_s,
        startTime=_time(job.started_at),
        heartbeatTime=_time(job.heartbeat_at),
        heartbeatAgeSeconds=age_s,
        externalUrl=job.object.url,
        externalGeneration=str(job.object.generation),
        outputUri=job.output.url,
        lease=job.lease,
        execution=job.execution or None,
        watch=job.watch,
    )


def model_to_wire(model: Model) -> Json:
    is_base = model.adapter is None and model.job is None
    wire = _without_unset(
        name=model.name,
        displayName=model.display_name,
        kind=model.kind,
        state=model.state,
        status={"code": "OK", "message": ""},
        createTime=_time(model.created_at),
        updateTime=_time(model.created_at),
        fineTuningJob=model.job,
        public=is_base,
        tunable=is_base,
        supportsLora=is_base,
        uri=model.uri,
    )
    if model.adapter:
        wire["peftDetails"] = {
            "baseModel": model.adapter.base_model,
            "r": model.adapter.rank,
            "targetModules": list(model.adapter.target_modules),
        }
    return wire


def watch_to_wire(watch: Watch) -> Json:
    template = watch.template
    return _without_unset(
        name=watch.name,
        createTime=_time(watch.created_at),
        createdBy=watch.created_by,
        bucket=watch.bucket,
        prefix=watch.prefix,
        enabled=watch.is_enabled,
        trainingTemplate={
            "baseModel": template.base_model,
            "outputPrefix": template.output_prefix,
            "epochs": template.settings.epochs,
            "learningRate": template.settings.learning_rate,
            "loraRank": template.settings.lora_rank,
            "maxContextLength": template.settings.max_context_length,
            "batchSize": template.settings.batch_size,
            "learningRateWarmupSteps": template.settings.learning_rate_warmup_steps,
            "optimizerWeightDecay": template.settings.weight_decay,
        }
        if template
        else None,
    )


def lease_to_wire(lease: Lease) -> Json:
    holder = lease.holder
    return _without_unset(
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
        createTime=_time(lease.created_at),
        claimTime=_time(lease.claimed_at),
        heartbeatTime=_time(lease.heartbeat_at),
        expireTime=_time(lease.expires_at),
        revokeTime=_time(lease.revoked_at),
        revokeReason=lease.revoked_because or None,
        lastTokenDies=_time(lease.dies_at),
        endTime=_time(lease.ended_at),
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
    return _without_unset(
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
        startTime=_time(reading.started_at),
        mintingStopTime=_time(reading.minting_stopped_at),
        mintingStopReason=reading.minting_stopped_because or None,
        lastPossibleUse=_time(reading.last_possible_use),
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
