"""Google's errors as sublet's: which of them pass, and which mean what."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import google.auth.exceptions
import requests
import urllib3.exceptions
from google.api_core import exceptions as google_errors

from sublet.errors import (
    AccessDenied,
    Conflict,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    SubletError,
    TryAgain,
    Unauthenticated,
)
from sublet.gcp.sessions import HttpAnswer

_MEANINGS: dict[int, type[SubletError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    412: FailedPrecondition,
}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """
    Raise sublet's error for any that a Google client raises while doing `what`.

    Only what is known to be final is final; everything else is worth another try.
    """
    try:
        yield
    except google_errors.GoogleAPICallError as error:
        status = int(error.code) if error.code is not None else 500
        raise _MEANINGS.get(status, TryAgain)(f"{what}: {error.message}") from error
    except (
        google_errors.RetryError,
        google.auth.exceptions.TransportError,
        google.auth.exceptions.RefreshError,
        requests.RequestException,
        urllib3.exceptions.HTTPError,
    ) as error:
        raise TryAgain(f"{what}: {type(error).__name__}") from error


def check_answer(response: HttpAnswer, what: str) -> None:
    """
    Raise for a REST answer that is not a success.

    Raises:
        TryAgain: for 429, any 5xx, and a precondition that time will mend.
    """
    if response.ok:
        return
    try:
        body = response.json()
        error = body.get("error", body)
        message = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, AttributeError, TypeError):
        message = response.reason
    if meaning := _MEANINGS.get(response.status_code):
        raise meaning(f"{what}: {message}")
    wait_s = response.headers.get("Retry-After", "")
    after = timedelta(seconds=int(wait_s[:6]) if wait_s.isascii() and wait_s.isdigit() else 1)
    raise TryAgain(f"{what}: {message}", after=after)
