"""
The Run Admin API v2 over gRPC, on a port of its own, with google.longrunning.Operations beside it,
where clients look for it. Errors of the domain become statuses here and nowhere else.
"""

import socket
from collections.abc import Sequence
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf import json_format

from sublet.errors import SubletError
from sublet.local.grpc_calls import Context, Proto, abort, authorization_of, serialized
from sublet.local.iam.enforcement import Iam
from sublet.local.run.methods import Method, methods_of
from sublet.local.run.service import RunService

_GRACE_S: Final = 0.1


class RunServer:
    def __init__(
        self,
        iam: Iam,
        service: RunService,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._iam = iam
        self._service = service
        self._interceptors = interceptors
        self._server: grpc.aio.Server | None = None

    async def start(self, reserved: socket.socket) -> str:
        """
        Listen where the socket, which has SO_REUSEPORT and does not listen, kept a port free.

        Returns:
            HOST:PORT, as a channel wants it.
        """
        address = "{}:{}".format(*reserved.getsockname()[:2])
        self._server = grpc.aio.server(
            interceptors=self._interceptors, options=(("grpc.so_reuseport", 1),)
        )
        self._server.add_generic_rpc_handlers(self._handlers())
        self._server.add_insecure_port(address)
        await self._server.start()
        return address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(grace=_GRACE_S)

    def _handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        by_service: dict[str, dict[str, Any]] = {}
        for method in methods_of(self._service):
            by_service.setdefault(method.service, {})[method.name] = self._handler(method)
        return tuple(
            grpc.method_handlers_generic_handler(service, handlers)
            for service, handlers in by_service.items()
        )

    def _handler(self, method: Method) -> "grpc.RpcMethodHandler[Proto, Proto]":
        async def answer(request: Proto, context: Context) -> Proto:
            try:
                caller = self._iam.tokens.resolve(authorization_of(context))
                wire = await method.answer(caller, method.as_json(request))
            except SubletError as error:
                await abort(context, error)
            return json_format.ParseDict(wire, method.response())

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=method.request.FromString,
            response_serializer=serialized,
        )
