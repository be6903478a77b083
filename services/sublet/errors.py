"""
Every error of sublet, drawn as a tree. A message says what, got, expected and what to do; it never
holds a token, a row's text or a reward. Domain code raises; edges translate.

    SubletError
    +-- InvalidRequest       400  the request itself is wrong: a field, a combination, a name
    +-- Unauthenticated      401  no credential, or an unknown, expired or disabled one
    +-- AccessDenied         403  a known caller lacks a right, or a bucket does not grant enough
    +-- NotFound             404  nothing is there, or nothing that this caller may know of
    +-- Conflict             409  somebody else has it
    |   +-- AlreadyExists    409  a create met a different thing of the same name
    |   +-- LostRace         409  a record changed between reading and writing it: read again
    +-- FailedPrecondition   412  the thing is in a state that does not allow this
    +-- Unimplemented        501  a thing of the API that is not offered here
    +-- MalformedEvent       400  an event no retry can mend: acknowledge, quarantine, count
    +-- TryAgain             503  a passing fault: the broker redelivers, a client repeats
        +-- BetterAlone      503  one of several that would keep the others waiting
"""

import math
from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar, Self

from sublet.error_details import Detail, bad_fields, retry_after


class SubletError(Exception):
    """The root: catch it at an edge, never inside the domain."""

    status: ClassVar[int] = 500
    reason: ClassVar[str] = "INTERNAL"
    code: ClassVar[int] = 13
    """The gRPC code that `reason` is the name of, for a MalformedEvent that of what it is like."""
    retry: ClassVar[bool] = False

    def __init__(self, *args: object, details: Iterable[Detail] = ()) -> None:
        super().__init__(*args)
        self.details = tuple(details)

    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)

    def to_wire(self) -> dict[str, object]:
        """google.rpc.Status as JSON, the body of every refusal of ours."""
        return {"code": self.code, "message": str(self), "details": [*self.details]}


class InvalidRequest(SubletError):
    """
    Raised when a request cannot be served whatever the state: a bad field, name or combination.
    """

    status = 400
    reason = "INVALID_ARGUMENT"
    code = 3

    @classmethod
    def of_field(cls, field: str, message: str) -> Self:
        """
        Args:
            field: its path in a request's JSON or query, in camelCase.
        """
        return cls(message, details=[bad_fields([(field, message)])])


class Unauthenticated(SubletError):
    """Raised when a caller shows no credential, or one that is unknown, expired or disabled."""

    status = 401
    reason = "UNAUTHENTICATED"
    code = 16


class AccessDenied(SubletError):
    """
    Raised when a known caller lacks a right, or a bucket's policy does not prove what it must.
    """

    status = 403
    reason = "PERMISSION_DENIED"
    code = 7


class NotFound(SubletError):
    """Raised when a name resolves to nothing, or to nothing that this caller may know of."""

    status = 404
    reason = "NOT_FOUND"
    code = 5


class Conflict(SubletError):
    """Raised when somebody else holds what was asked for."""

    status = 409
    reason = "ABORTED"
    code = 10


class AlreadyExists(Conflict):
    """Raised when a create meets a different record of the same name."""

    reason = "ALREADY_EXISTS"
    code = 6


class LostRace(Conflict):
    """Raised by a registry when a record is not at the version that a write expects."""

    retry = True


class FailedPrecondition(SubletError):
    """Raised when the thing asked about is in a state that does not allow what was asked."""

    status = 412
    reason = "FAILED_PRECONDITION"
    code = 9


class Unimplemented(SubletError):
    """Raised for what others offer on the same wire and sublet does not; names a substitute."""

    status = 501
    reason = "UNIMPLEMENTED"
    code = 12


class MalformedEvent(SubletError):
    """Raised for an event that no retry can mend; edges acknowledge, quarantine and count it."""

    status = 400
    reason = "MALFORMED_EVENT"
    code = 3


class TryAgain(SubletError):
    """
    Raised for a passing fault; the broker redelivers with back-off, a client waits and repeats.
    """

    status = 503
    reason = "UNAVAILABLE"
    code = 14
    retry = True

    def __init__(self, message: str, *, after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(message)
        self.after = after
        """When asking again may help, where that is known; most of what passes takes a second."""
        self.details = (retry_after(self.after_s),)

    @property
    def after_s(self) -> int:
        """Whole seconds, never too early."""
        return max(1, math.ceil(self.after.total_seconds()))


class BetterAlone(TryAgain):
    """Raised for one of several things that would keep the others waiting: handle it by itself."""
