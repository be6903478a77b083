"""
Records and facts as JSON and back. Names are strings on the wire and typed names in memory; unknown
fields are ignored, so that an older part reads what a newer one wrote.
"""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from sublet.errors import MalformedEvent, SubletError
from sublet.events import FACTS, Fact
from sublet.names import LIVE_GENERATION, AccountName, Generation, ResourceName

T = TypeVar("T")


def encode(value: object) -> bytes:
    return msgspec.json.encode(value, enc_hook=_to_wire)


def decode(data: bytes | str, kind: type[T]) -> T:
    """
    Raises:
        msgspec.ValidationError: a field is missing or of the wrong type.
    """
    return msgspec.json.decode(data, type=kind, dec_hook=_from_wire)


def to_builtins(value: object) -> Any:  # noqa: ANN401  JSON is any
    return msgspec.to_builtins(value, enc_hook=_to_wire)


def decode_fact(event_type: str, data: bytes) -> Fact:
    """
    Raises:
        MalformedEvent: the type is not one of ours, or a field is missing or wrong, named.
    """
    for kind in FACTS:
        if kind.type == event_type:
            try:
                return decode(data, kind)
            except (msgspec.DecodeError, UnicodeDecodeError, SubletError) as error:
                raise MalformedEvent(f"{event_type}: {error}") from None
    raise MalformedEvent(
        f"got event type {event_type!r}; expected one of {[k.type for k in FACTS]}"
    )


def rfc3339(time: datetime) -> str:
    """As the API writes it: UTC with microseconds and a Z."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _to_wire(value: object) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Generation):
        return str(int(value))
    raise NotImplementedError(f"cannot encode {type(value).__name__}")


def _from_wire(kind: type[Any], value: object) -> Any:  # noqa: ANN401
    if issubclass(kind, Generation) and value == str(LIVE_GENERATION):
        return LIVE_GENERATION
    if issubclass(kind, AccountName | ResourceName | Generation) and isinstance(value, str):
        return kind.parse(value)
    raise NotImplementedError(f"cannot decode {kind.__name__}")
