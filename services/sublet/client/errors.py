"""
What the client raises. A refusal of the control plane is raised here as the class that it was
raised as there, with the same words; a note says which request it answered.

    SubletError                      catch it to catch all
    +-- InvalidRequest          400  the request itself is wrong: a field, a combination, a name
    +-- Unauthenticated         401  the API key is unknown, expired or revoked
    +-- AccessDenied            403  the key lacks the right, or a bucket does not grant enough
    +-- NotFound                404  nothing is there, or nothing that this key may know of
    +-- Conflict                409  somebody else changed it at the same moment
    |   +-- AlreadyExists       409  something else has that name: choose another
    +-- FailedPrecondition      400  it is in a state that does not allow this
    +-- Unimplemented           501  sublet does not offer that; the message says what to use
    +-- TryAgain                503  a passing fault, and repeating it did not help yet
    |   +-- Unreachable              nobody answered, or not to the end
    +-- NotConfigured                no address or no API key is given; nothing was asked
    +-- UnexpectedAnswer             whoever answered is no control plane
    +-- WaitTimedOut                 a job was not over in time; it goes on
    +-- BadState                     a job ended otherwise than well; also a RuntimeError
        +-- JobFailed                its status says why
        +-- JobCancelled             somebody cancelled it
        +-- JobDeleted               it is gone: it was deleted while it was waited for
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

from sublet.errors import (
    AccessDenied,
    AlreadyExists,
    BetterAlone,
    Conflict,
    FailedPrecondition,
    InvalidRequest,
    LostRace,
    MalformedEvent,
    NotFound,
    SubletError,
    TryAgain,
    Unauthenticated,
    Unimplemented,
)

__all__ = [
    "AccessDenied",
    "AlreadyExists",
    "BadState",
    "Conflict",
    "FailedPrecondition",
    "InvalidRequest",
    "JobCancelled",
    "JobDeleted",
    "JobFailed",
    "NotConfigured",
    "NotFound",
    "SubletError",
    "TryAgain",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Unimplemented",
    "Unreachable",
    "WaitTimedOut",
    "is_control_planes",
    "refusal_of",
]


class Unreachable(TryAgain):
    """Raised when nobody answers at the base URL, or the answer breaks off."""


class NotConfigured(SubletError):
    """Raised before anything is sent: an address or an API key is missing, or would be unsafe."""


class UnexpectedAnswer(SubletError):
    """Raised for an answer that no control plane gives: another server is at the base URL."""


class WaitTimedOut(SubletError):
    """Raised when a job is not over in the time that a caller would wait; the job goes on."""


class BadState(SubletError, RuntimeError):
    """
    Raised for a job that will not complete. A RuntimeError too: callers of the Fireworks client
    catch that.
    """


class JobFailed(BadState):
    """Raised for a job that failed; the message ends with the cause."""


class JobCancelled(BadState):
    """Raised for a job that somebody cancelled, or is cancelling."""


class JobDeleted(BadState):
    """Raised when a job is gone, or going, while it is waited for."""


_NOT_ON_THE_WIRE: Final = (BetterAlone, LostRace, MalformedEvent)
_OTHER_CODES: Final[Mapping[int, type[SubletError]]] = {
    4: TryAgain,  # DEADLINE_EXCEEDED
    8: TryAgain,  # RESOURCE_EXHAUSTED
}
_STATUSES: Final[Mapping[int, type[SubletError]]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: AccessDenied,
    404: NotFound,
    408: TryAgain,
    409: Conflict,
    429: TryAgain,
    501: Unimplemented,
    502: TryAgain,
    503: TryAgain,
    504: TryAgain,
}
"""For what stands between: a load balancer or a proxy answers in words of its own."""


def refusal_of(status: int, body: object) -> SubletError:
    """
    The error that an answer is.

    Args:
        status: HTTP's.
        body: google.rpc.Status as JSON, or whatever else came.
    """
    if is_control_planes(body):
        refusal = _by_code().get(body["code"], SubletError)(str(body["message"]))
        refusal.details = tuple(one for one in body.get("details") or () if isinstance(one, dict))
        return refusal
    return _STATUSES.get(status, UnexpectedAnswer)(
        f"HTTP {status}, not in the words of a control plane: {str(body).strip()[:200]!r}"
    )


def is_control_planes(body: object) -> TypeGuard[dict[str, Any]]:
    """True for a refusal by a control plane, and not by what stands between."""
    return isinstance(body, dict) and isinstance(body.get("code"), int) and "message" in body


def _by_code() -> Mapping[int, type[SubletError]]:
    return {**_OTHER_CODES, **{kind.code: kind for kind in _server_errors(SubletError)}}


def _server_errors(kind: type[SubletError]) -> Iterator[type[SubletError]]:
    if kind.__module__ == SubletError.__module__ and kind not in _NOT_ON_THE_WIRE:
        yield kind
    for child in kind.__subclasses__():
        yield from _server_errors(child)
