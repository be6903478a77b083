"""One call of a gRPC server of ours: who makes it, and how an error of the domain ends it."""

from typing import Any, Final, NoReturn

import grpc
import grpc.aio

from sublet.errors import SubletError

Proto = Any
"""A protobuf message; its classes are made at run time, so no checker knows them."""
Context = grpc.aio.ServicerContext[Proto, Proto]
Trailers = tuple[tuple[str, bytes], ...]
_STATUSES: Final = {status.value[0]: status for status in grpc.StatusCode}


def authorization_of(context: Context) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return str(value)
    return None


def serialized(message: Proto) -> bytes:
    made: bytes = message.SerializeToString()
    return made


async def abort(context: Context, error: SubletError, trailers: Trailers = ()) -> NoReturn:
    await context.abort(_STATUSES[error.code], str(error), trailers)
