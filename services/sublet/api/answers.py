"""
Answers: what the API shows of a resource, typed. JSON of an answer is camelCase; int64 are strings,
times are RFC 3339, and what is not set is left out. What Fireworks' own types do not have rides
along under names of ours.

Source: https://protobuf.dev/programming-guides/json
"""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec

from sublet.api.masks import camel
from sublet.codec import rfc3339, to_builtins
from sublet.datasets import Status

Json = dict[str, Any]
Int64 = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^-?[0-9]+$"})]
Timestamp = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Answer(msgspec.Struct, rename=camel, omit_defaults=True):
    """A field that has a default is left out when it has that: None, unless it says otherwise."""

    def to_json(self) -> Json:
        shown: Json = to_builtins(self)
        return shown


class StatusAnswer(Answer, kw_only=True):
    """`code` is the name of a gRPC code, where an error's is its number."""

    code: str
    message: str

    @classmethod
    def of(cls, status: Status) -> "StatusAnswer":
        return cls(code=status.code, message=status.message)


WELL = StatusAnswer(code="OK", message="")


def time_to_wire(value: datetime | None) -> str | None:
    return None if value is None else rfc3339(value)


def utc(time: datetime) -> datetime:
    """
    A time as we keep it; one without a zone is UTC: clients send such ones.

    Raises:
        OverflowError: it is before the year 1 or after the year 9999 there.
    """
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
