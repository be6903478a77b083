"""
The event that says an execution is over: the system event of Cloud Run's audit log, as Eventarc
delivers it. In the cloud it is late and comes at least once; here it is prompt, and comes again
after a restart if nobody said that it was taken.

The method is `/Jobs.RunJob`, in the log `system_event`, with status 10 for an execution that
failed, and an Execution in the older API's form as its response.

Source: https://cloud.google.com/run/docs/audit-logging,
    https://cloud.google.com/eventarc/docs/cloudevents
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sublet.codec import rfc3339
from sublet.local.run.resources import CODES, Execution, Outcome

TYPE: Final = "google.cloud.audit.log.v1.written"
SERVICE: Final = "run.googleapis.com"
METHOD: Final = "/Jobs.RunJob"
_DATA_SCHEMA: Final = (
    "https://googleapis.github.io/google-cloudevents/jsonschema/google/events/cloud/audit/v1/"
    "LogEntryData.json"
)
_CONTENT_TYPE: Final = "application/json; charset=utf-8"
_STATUSES: Final = {
    Outcome.SUCCEEDED: "True",
    Outcome.FAILED: "False",
    Outcome.CANCELLED: "False",
    Outcome.RUNNING: "Unknown",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """A CloudEvent of an audit log; `data` is a LogEntryData in JSON."""

    id: str
    source: str
    subject: str
    time: datetime
    service_name: str
    method_name: str
    resource_name: str
    data: dict[str, Any]
    type: str = TYPE

    @property
    def project(self) -> str:
        return self.resource_name.split("/")[1]

    def attributes(self) -> dict[str, str]:
        """Its context attributes, as a trigger's filters and a function see them."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": rfc3339(self.time),
            "recordedtime": rfc3339(self.time),
            "dataschema": _DATA_SCHEMA,
            "datacontenttype": _CONTENT_TYPE,
            "servicename": self.service_name,
            "methodname": self.method_name,
            "resourcename": self.resource_name,
        }

    def to_http(self) -> tuple[dict[str, str], bytes]:
        """Headers and body of its delivery in binary mode; over Pub/Sub, attributes and data."""
        attributes = self.attributes()
        content_type = attributes.pop("datacontenttype")
        headers = {f"ce-{name}": value for name, value in attributes.items()}
        return {"content-type": content_type, **headers}, json.dumps(self.data).encode()


def execution_ended(execution: Execution) -> AuditEvent:
    _, project, _, location, _, job = execution.job.split("/")
    ended_at = execution.ended_at or execution.created_at
    resource_name = f"namespaces/{project}/executions/{execution.short_name}"
    log = f"projects/{project}/logs/cloudaudit.googleapis.com%2Fsystem_event"
    insert_id = execution.uid.replace("-", "")[:16]
    entry = {
        "protoPayload": {
            "@type": "type.googleapis.com/google.cloud.audit.AuditLog",
            "status": _status(execution),
            "serviceName": SERVICE,
            "methodName": METHOD,
            "resourceName": resource_name,
            "response": _old_execution(execution),
        },
        "insertId": insert_id,
        "resource": {
            "type": "cloud_run_job",
            "labels": {"project_id": project, "location": location, "job_name": job},
        },
        "timestamp": rfc3339(ended_at),
        "severity": "ERROR" if execution.outcome is Outcome.FAILED else "INFO",
        "labels": {"run.googleapis.com/execution_name": execution.short_name},
        "logName": log,
        "receiveTimestamp": rfc3339(ended_at),
    }
    stamp = f"{int(ended_at.timestamp())}{ended_at.microsecond:06d}"
    return AuditEvent(
        id=f"{log}{insert_id}{stamp}",
        source=f"//cloudaudit.googleapis.com/projects/{project}/logs/system_event",
        subject=f"{SERVICE}/{resource_name}",
        time=ended_at,
        service_name=SERVICE,
        method_name=METHOD,
        resource_name=resource_name,
        data=entry,
    )


def _status(execution: Execution) -> dict[str, Any]:
    name = execution.short_name
    match execution.outcome:
        case Outcome.SUCCEEDED:
            return {"message": f"Execution {name} has completed successfully."}
        case Outcome.CANCELLED:
            message = f"Execution {name} was cancelled."
        case _:
            message = f"Execution {name} has failed to complete, {execution.message}"
    return {"code": CODES[execution.outcome], "message": message}


def _old_execution(execution: Execution) -> dict[str, Any]:
    """
    The execution as the API of version 1 says it.

    Source: https://cloud.google.com/run/docs/reference/rest/v1/namespaces.executions
    """
    _, project, _, location, _, job = execution.job.split("/")
    template = execution.template
    container = {
        "image": template.image,
        "command": list(template.command),
        "args": list(template.arguments),
        "env": [{"name": k, "value": v} for k, v in template.environment.items()],
    }
    task = {
        "containers": [container],
        "maxRetries": template.max_retries,
        "timeoutSeconds": str(int(template.timeout_s)),
        "serviceAccountName": template.service_account,
    }
    wire = execution.to_wire()
    condition: dict[str, Any] = {"type": "Completed", "status": _STATUSES[execution.outcome]}
    if execution.message:
        condition["message"] = execution.message
    counts = ("succeededCount", "failedCount", "cancelledCount", "retriedCount")
    times = ("startTime", "completionTime")
    return {
        "@type": "type.googleapis.com/google.cloud.run.v1.Execution",
        "apiVersion": "run.googleapis.com/v1",
        "kind": "Execution",
        "metadata": {
            "name": execution.short_name,
            "namespace": project,
            "uid": execution.uid,
            "creationTimestamp": rfc3339(execution.created_at),
            "labels": {
                **execution.labels,
                "run.googleapis.com/job": job,
                "cloud.googleapis.com/location": location,
            },
            "annotations": {"run.googleapis.com/creator": execution.creator},
        },
        "spec": {
            "parallelism": template.parallelism,
            "taskCount": len(execution.tasks),
            "template": {"metadata": {"labels": execution.labels}, "spec": task},
        },
        "status": {
            "conditions": [condition],
            "logUri": wire["logUri"],
            **{name: wire[name] for name in counts if wire[name]},
            **{name: wire[name] for name in times if name in wire},
        },
    }
