"""
Errors on the wire: the body is google.rpc.Status as JSON with an integer code, the status is
HTTP's. What was refused to a caller that we know is in their account's audit log.

Source: https://cloud.google.com/apis/design/errors,
https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
"""

import logging
from http import HTTPStatus
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from sublet.api.control_plane import control_plane_of
from sublet.audit import Action
from sublet.error_details import bad_fields
from sublet.errors import InvalidRequest, NotFound, SubletError, TryAgain, Unimplemented
from sublet.keys import KeyHolder

_log = logging.getLogger(__name__)
_STATUSES: Final = {"FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST}
"""Where the API's clients expect another status than we use between ourselves."""
_NEVER_RETRY: Final = {"x-should-retry": "false"}
"""The client retries 409 and 501 of its own; these will be the same the next time."""
_FINAL_REASONS: Final = frozenset({"ALREADY_EXISTS", "UNIMPLEMENTED"})
_READS: Final = frozenset({"GET", "HEAD"})
_MAX_LOGGED: Final = 1000


def install(app: FastAPI) -> None:
    app.add_exception_handler(SubletError, _sublet_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


async def _sublet_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, SubletError)
    await _note_refusal(request, error)
    status = _STATUSES.get(error.reason, error.status)
    return JSONResponse(error.to_wire(), status, _advice(error))


def _advice(error: SubletError) -> dict[str, str]:
    if error.reason in _FINAL_REASONS:
        return _NEVER_RETRY
    return {"Retry-After": str(error.after_s)} if isinstance(error, TryAgain) else {}


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = {".".join(map(str, detail["loc"])): str(detail["msg"]) for detail in error.errors()}
    invalid = InvalidRequest(
        f"not valid: {', '.join(found)}", details=[bad_fields(sorted(found.items()))]
    )
    return await _sublet_error(request, invalid)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself, in our words."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        body = Unimplemented(f"{asked} is not offered; see /openapi.json").to_wire()
        headers = {**_NEVER_RETRY, **(error.headers or {})}
        return JSONResponse(body, HTTPStatus.METHOD_NOT_ALLOWED, headers)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return JSONResponse(NotFound(f"no such path: {asked}").to_wire(), 404)
    return JSONResponse(InvalidRequest(str(error.detail)).to_wire(), error.status_code)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw: the log has the traceback, the caller has no inside of ours."""
    _log.error("%s %s: %s", request.method, request.url.path, type(error).__name__)
    return JSONResponse(
        SubletError("an internal error; the control plane's log has the cause").to_wire(), 500
    )


async def _note_refusal(request: Request, error: SubletError) -> None:
    """Reads that find nothing are no refusals; everything else is kept, in the caller's account."""
    holder: KeyHolder | None = getattr(request.state, "holder", None)
    is_read = request.method in _READS and error.status != HTTPStatus.FORBIDDEN
    if holder is None or is_read or error.retry:
        return
    action = Action(
        method=f"{request.method} {_operation(request)}",
        resource=request.url.path,
        message=str(error)[:_MAX_LOGGED],
        code=error.reason,
    )
    await run_in_threadpool(control_plane_of(request).registry.append, holder.account, action)


def _operation(request: Request) -> str:
    route = request.scope.get("route")
    return str(getattr(route, "path", "unknown"))
