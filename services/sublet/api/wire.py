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
from sublet.accounts import Account, ApiKey, User, UserName
from sublet.codec import rfc3339
from sublet.datasets import Dataset, Status
from sublet.errors import InvalidRequest
from sublet.jobs import Job
from sublet.leases import LeaseTerms
from sublet.models import Model
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


def unwrapped(body: object, key: str) -> object:
    """A body that is sent whole, or under its resource's name as some callers do."""
    if isinstance(body, dict):
        for name in (key, _snake_name(key)):
            if isinstance(body.get(name), dict):
                return body[name]
    return body


def _snake(value: object) -> object:
    """Keys in snake_case; what is null is left out."""
    if isinstance(value, dict):
        return {
            _snake_name(str(key)): _snake(item) for key, item in value.items() if item is not None
        }
    return [_snake(item) for item in value] if isinstance(value, list) else value


def _snake_name(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found[1].lower()}", name)


def without_unset(**fields: Any) -> Json:  # noqa: ANN401
    return {key: value for key, value in fields.items() if value is not None}


def time_to_wire(value: datetime | None) -> str | None:
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


def user_to_wire(user: User) -> Json:
    return {
        "name": user.name,
        "displayName": user.display_name,
        "email": user.email,
        "role": user.role,
        "serviceAccount": user.is_service_account,
        "state": "READY",
        "status": {"code": "OK", "message": ""},
        "createTime": rfc3339(user.created_at),
        "updateTime": rfc3339(user.updated_at),
    }


def api_key_to_wire(key: ApiKey) -> Json:
    """Never the key itself: `secure` says that nobody here knows it any more."""
    return without_unset(
        keyId=key.key_id,
        displayName=key.display_name,
        user=UserName.of(key.account, key.user),
        secure=True,
        createTime=time_to_wire(key.created_at),
        expireTime=time_to_wire(key.expires_at),
        lastUseTime=time_to_wire(key.used_at),
    )


def dataset_to_wire(dataset: Dataset) -> Json:
    return without_unset(
        name=dataset.name,
        displayName=dataset.display_name,
        createTime=time_to_wire(dataset.created_at),
        updateTime=time_to_wire(dataset.updated_at or dataset.created_at),
        state=dataset.state,
        status=_status(dataset.status),
        estimatedTokenCount="0",
        exampleCount=str(dataset.rows.num_rows) if dataset.rows else "0",
        externalUrl=dataset.object.url,
        format=(dataset.rows and dataset.rows.format) or "FORMAT_UNSPECIFIED",
        createdBy=dataset.created_by,
        externalGeneration=str(dataset.object.generation),
        externalCrc32c=dataset.crc32c,
        externalSizeBytes=str(dataset.size_bytes),
        objectFinalizeTime=time_to_wire(dataset.finalized_at),
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
    return without_unset(
        name=job.name,
        displayName=job.display_name,
        createTime=time_to_wire(job.created_at),
        updateTime=time_to_wire(job.completed_at or job.heartbeat_at or job.created_at),
        completedTime=time_to_wire(job.completed_at),
        state=job.state,
        status=status,
        dataset=job.dataset,
        baseModel=job.base_model if job.warm_start_from is None else None,
        warmStartFrom=job.warm_start_from,
        outputModel=job.output_model,
        createdBy=job.created_by,
        epochs=settings.epochs,
        learningRate=settings.learning_rate,
        loraRank=settings.lora_rank,
        maxContextLength=settings.max_context_length,
        batchSize=settings.batch_size,
        learningRateWarmupSteps=settings.learning_rate_warmup_steps,
        optimizerWeightDecay=settings.weight_decay,
        batchSizeSamples=0,
        earlyStop=False,
        evalAutoCarveout=False,
        gradientAccumulationSteps=1,
        jobProgress={"percent": progress.percent, "epoch": int(progress.epoch)},
        step=progress.step,
        numSteps=progress.num_steps,
        loss=progress.loss,
        tokensPerSecond=progress.tokens_per_s,
        etaSeconds=progress.eta_s,
        startTime=time_to_wire(job.started_at),
        heartbeatTime=time_to_wire(job.heartbeat_at),
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
    wire = without_unset(
        name=model.name,
        displayName=model.display_name,
        kind=model.kind,
        state=model.state,
        status={"code": "OK", "message": ""},
        createTime=time_to_wire(model.created_at),
        updateTime=time_to_wire(model.created_at),
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
    return without_unset(
        name=watch.name,
        createTime=time_to_wire(watch.created_at),
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
