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

from sublet.errors import InvalidRequest, NotFound, SubletError, Unimplemented

_STATUSES: Final = {"FAILED_PRECONDITION": 400}
"""Where the API's clients expect another status than we use between ourselves."""
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
    headers = _NEVER_RETRY if error.reason == "ALREADY_EXISTS" else None
    return JSONResponse(error.to_wire(), status, headers)


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    del request
    assert isinstance(error, RequestValidationError)
    where = ", ".join(".".join(map(str, detail["loc"])) for detail in error.errors())
    return JSONResponse(InvalidRequest(f"not valid: {where}").to_wire(), 400)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself, in our words."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return JSONResponse(Unimplemented(f"{asked} is not offered").to_wire(), 501, _NEVER_RETRY)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return JSONResponse(NotFound(f"no such path: {asked}").to_wire(), 404)
    return JSONResponse(InvalidRequest(str(error.detail)).to_wire(), error.status_code)
