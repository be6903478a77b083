"""
What gRPC and REST share: how a method is declared, how a masked update is read, and what is told of
a refusal beside its message.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from google.protobuf import any_pb2, field_mask_pb2
from google.rpc import error_details_pb2  # type: ignore[import-untyped]

from sublet.errors import InvalidRequest, SubletError
from sublet.local.grpc_calls import Proto
from sublet.local.iam.tokens import Caller
from sublet.local.pubsub.delivery import StaleAckIds
from sublet.local.pubsub.guard import SERVICE


@dataclass(frozen=True, slots=True)
class Unary:
    """A method that answers one request. `request` is the protobuf class that reads it."""

    request: Proto
    answer: Callable[[Caller, Proto], Proto]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A method that may wait for its answer, told how many seconds the client will (None: ever)."""

    request: Proto
    answer: Callable[[Caller, Proto, float | None], Awaitable[Proto]]


def merged(change: Proto, current: Proto, mask: Proto, mutable: Sequence[str]) -> Proto:
    """
    Return `current` with the fields that `mask` names as they are in `change`; paths may go deep.

    Raises:
        InvalidRequest: the mask is empty, or names a field that cannot be changed.
    """
    if not mask.paths:
        raise InvalidRequest("The update_mask must be set, and contain a non-empty paths list.")
    for path in mask.paths:
        if path.partition(".")[0] not in mutable:
            raise InvalidRequest(
                f"Invalid update_mask: {path} cannot be changed; expected {', '.join(mutable)}. "
                "Field paths are of the form 'push_config', not 'pushConfig'."
            )
    result = type(current)()
    result.CopyFrom(current)
    try:
        field_mask_pb2.FieldMask(paths=mask.paths).MergeMessage(
            change, result, replace_message_field=True, replace_repeated_field=True
        )
    except ValueError as error:
        raise InvalidRequest(f"Invalid update_mask: {error}") from None
    return result


def details_of(error: SubletError) -> list[any_pb2.Any]:
    """What became of each ack id, in the form that clients look for it in."""
    if not isinstance(error, StaleAckIds):
        return []
    detail = any_pb2.Any()
    detail.Pack(
        error_details_pb2.ErrorInfo(
            reason="EXACTLY_ONCE_ACKID_FAILURE", domain=SERVICE, metadata=error.outcomes
        )
    )
    return [detail]
