"""
The process's side of it: a gRPC server on loopback, the loops that push, and the one timer. Errors
of the domain become gRPC statuses here and nowhere else.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import grpc
import grpc.aio
from google.pubsub_v1 import types
from google.rpc import status_pb2  # type: ignore[import-untyped]

from sublet.errors import InvalidRequest, SubletError
from sublet.local.grpc_calls import (
    Context,
    Proto,
    Trailers,
    abort,
    authorization_of,
    serialized,
)
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.iam_policy_api import IamPolicyApi
from sublet.local.pubsub.methods import Unary, Waiting, details_of
from sublet.local.pubsub.publisher_api import PublisherApi
from sublet.local.pubsub.push import PushLoops
from sublet.local.pubsub.resources import is_loopback
from sublet.local.pubsub.subscriber_api import SubscriberApi
from sublet.local.pubsub.timekeeping import keep_time

MAX_MESSAGE_BYTES: Final = 20 * 2**20
"""Above the 10 MB that a publish may have: what is too large is refused with a reason."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Google's clients ping an idle connection every 30 s; a server's default is to hang up on them.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
)
_SCHEMAS: Final = "google.pubsub.v1.SchemaService"


class PubSubServer:
    """
    Serves one PubSub.

    ```python
    server = PubSubServer(pubsub)
    address = await server.start("127.0.0.1:8085")
    ...
    await server.stop()
    ```
    """

    def __init__(
        self, pubsub: PubSub, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> None:
        self.push_loops = PushLoops(pubsub)
        self._pubsub = pubsub
        self._interceptors = interceptors
        self._server: grpc.aio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, address: str | socket.socket = "127.0.0.1:0") -> str:
        """
        Listen, deliver, and return HOST:PORT.

        Args:
            address: HOST:PORT, port 0 for a free one; or a bound socket that does not listen and
                has SO_REUSEPORT, which has kept the port free for this server.

        Raises:
            InvalidRequest: the host is not loopback; here anybody may be the owner.
            OSError: the port is taken.
        """
        reserved = isinstance(address, socket.socket)
        if isinstance(address, socket.socket):
            address = "{}:{}".format(*address.getsockname()[:2])
        host, _, _ = address.rpartition(":")
        if not is_loopback(host):
            raise InvalidRequest(
                f"got address {address!r}; this local cloud talks to loopback only"
            )
        # Two servers that share a port would each get half of the calls.
        options = (*_OPTIONS, ("grpc.so_reuseport", int(reserved)))
        self._server = grpc.aio.server(interceptors=self._interceptors, options=options)
        self._server.add_generic_rpc_handlers(self._handlers())
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from None
        await self._server.start()
        self._tasks = [
            asyncio.create_task(self.push_loops.run()),
            asyncio.create_task(keep_time(self._pubsub)),
        ]
        for task in self._tasks:
            task.add_done_callback(_report)
        return f"{host}:{port}"

    async def stop(self) -> None:
        """Break pushes and streams off; clients see UNAVAILABLE, and connect again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(grace=0.1)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        subscriber = SubscriberApi(self._pubsub)
        services: dict[str, Mapping[str, Unary | Waiting]] = {
            "google.pubsub.v1.Publisher": PublisherApi(self._pubsub).methods(),
            "google.pubsub.v1.Subscriber": subscriber.methods(),
            "google.iam.v1.IAMPolicy": IamPolicyApi(self._pubsub).methods(),
        }
        handlers = {
            service: {name: self._unary(method) for name, method in methods.items()}
            for service, methods in services.items()
        }
        handlers["google.pubsub.v1.Subscriber"]["StreamingPull"] = self._stream(subscriber)
        return (
            *(grpc.method_handlers_generic_handler(s, methods) for s, methods in handlers.items()),
            _NoSchemas(),
        )

    def _unary(self, method: Unary | Waiting) -> "grpc.RpcMethodHandler[Proto, Proto]":
        async def answer(request: Proto, context: Context) -> Proto:
            try:
                caller = self._pubsub.iam.tokens.resolve(authorization_of(context))
                if isinstance(method, Waiting):
                    return await method.answer(caller, request, context.time_remaining())
                return method.answer(caller, request)
            except SubletError as error:
                await abort(context, error, _trailers(error))

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=method.request.FromString, response_serializer=serialized
        )

    def _stream(self, subscriber: SubscriberApi) -> "grpc.RpcMethodHandler[Proto, Proto]":
        async def serve(requests: AsyncIterator[Proto], context: Context) -> None:
            try:
                caller = self._pubsub.iam.tokens.resolve(authorization_of(context))
                await subscriber.streaming_pull(caller, requests, context.write)
            except SubletError as error:
                await abort(context, error, _trailers(error))

        return grpc.stream_stream_rpc_method_handler(
            serve,
            request_deserializer=types.StreamingPullRequest.pb().FromString,
            response_serializer=serialized,
        )


class _NoSchemas(grpc.GenericRpcHandler):
    """Answers for the one service of Pub/Sub that is not here."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Proto, Proto] | None":
        if not handler_call_details.method.startswith(f"/{_SCHEMAS}/"):
            return None

        async def refuse(request: bytes, context: Context) -> None:
            del request
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "this local Pub/Sub has no schemas; leave them out"
            )

        return grpc.unary_unary_rpc_method_handler(refuse)


def _trailers(error: SubletError) -> Trailers:
    details = details_of(error)
    if not details:
        return ()
    status = status_pb2.Status(code=error.code, message=str(error), details=details)
    return (("grpc-status-details-bin", status.SerializeToString()),)


def _report(task: asyncio.Task[None]) -> None:
    """A loop that dies takes delivery with it: say so at once, not when the server is stopped."""
    if not task.cancelled() and (error := task.exception()):
        task.get_loop().call_exception_handler(
            {"message": "local Pub/Sub stopped delivering", "exception": error, "task": task}
        )
