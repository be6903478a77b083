"""
Errors on the wire: the body is google.rpc.Status as JSON with an integer code, the status is
HTTP's.

Source: https://cloud.google.com/apis/design/errors,
https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
"""

from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from sublet.errors import SubletError

_CODES: Final = {
    "OK": 0,
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
_STATUSES: Final = {"FAILED_PRECONDITION": 400, "ALREADY_EXISTS": 409, "ABORTED": 409}
_NEVER_RETRY: Final = {"x-should-retry": "false"}
"""The client retries 409 and 501 of its own; these will be the same the next time."""


def install(app: FastAPI) -> None:
    app.add_exception_handler(SubletError, _sublet_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def _sublet_error(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, SubletError)
    status = _STATUSES.get(error.reason, error.status)
    headers = _NEVER_RETRY if error.reason in ("ALREADY_EXISTS", "UNIMPLEMENTED") else None
    return problem(status, error.reason, str(error), headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)
    where = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
    return problem(400, "INVALID_ARGUMENT", f"not valid: {where}")


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return problem(404, "NOT_FOUND", f"no such path: {request.method} {request.url.path}")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message = f"{request.method} is not allowed on {request.url.path}"
        return problem(501, "UNIMPLEMENTED", message, _NEVER_RETRY)
    return problem(error.status_code, "INVALID_ARGUMENT", str(error.detail))


def problem(
    status: int, reason: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    code = _CODES.get(reason, 2)
    return JSONResponse({"code": code, "message": message, "details": []}, status, headers)
