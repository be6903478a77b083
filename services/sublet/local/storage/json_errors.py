"""The older form of error, which the JSON API of Cloud Storage keeps."""

from typing import Final

from sublet.errors import SubletError
from sublet.local.web import HttpError

_REASONS: Final = {
    "ABORTED": "conflict",
    "ALREADY_EXISTS": "conflict",
    "FAILED_PRECONDITION": "conditionNotMet",
    "INVALID_ARGUMENT": "invalid",
    "NOT_FOUND": "notFound",
    "PERMISSION_DENIED": "forbidden",
    "UNAUTHENTICATED": "required",
    "UNIMPLEMENTED": "notImplemented",
}
_HTTP_REASONS: Final = {
    405: "methodNotAllowed",
    404: "notFound",
    416: "requestedRangeNotSatisfiable",
    503: "backendError",
}


def storage_error(status: int, error: SubletError) -> object:
    """
    Say an error as the API does; `storage_reason` of an error's class goes before the usual one.

    Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes
    """
    reason = getattr(error, "storage_reason", None)
    if reason is None:
        reasons = _HTTP_REASONS if isinstance(error, HttpError) else {}
        reason = reasons.get(status) or _REASONS.get(error.reason, "invalid")
    details = {"message": str(error), "domain": "global", "reason": reason}
    return {"error": {"code": status, "message": str(error), "errors": [details]}}
