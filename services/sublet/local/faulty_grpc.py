"""The faults of faulty_http, for what is asked over gRPC."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from sublet.local.faults import Fault, Faults

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = grpc.aio.ServicerContext[Any, Any]
_CONDITIONAL: Final = "/SetIamPolicy"


class FaultyGrpc(grpc.aio.ServerInterceptor):
    """
    Args:
        part: begins every subject, which goes on as an HTTP request's does: POST and the path.
        expire_token: what `token-expiry-now` does with a call's authorization.
    """

    def __init__(self, part: str, faults: Faults, expire_token: Callable[[str], None]) -> None:
        self._part = part
        self._faults = faults
        self._expire_token = expire_token

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        if handler is None or not self._faults.orders:
            return handler
        subject = f"{self._part} POST {handler_call_details.method}"
        if wait := self._faults.delay(Fault.SLOW, subject):
            await asyncio.sleep(wait.total_seconds())
        if self._faults.strikes(Fault.RETURN_503, subject):
            return _refusing(handler, grpc.StatusCode.UNAVAILABLE, Fault.RETURN_503)
        is_conditional = subject.endswith(_CONDITIONAL)
        if is_conditional and self._faults.strikes(Fault.ETAG_CONFLICT, subject):
            return _refusing(handler, grpc.StatusCode.ABORTED, Fault.ETAG_CONFLICT)
        token = dict(handler_call_details.invocation_metadata or ()).get("authorization")
        if token and self._faults.strikes(Fault.TOKEN_EXPIRY_NOW, subject):
            self._expire_token(str(token))
        if self._faults.strikes(Fault.RESET_CONNECTION, subject):
            return _unheard(handler)
        return handler


def _refusing(handler: Handler, code: grpc.StatusCode, fault: Fault) -> Handler:
    async def refuse(_request: object, context: Context) -> None:
        await context.abort(code, f"{fault}: somebody ordered this fault of the local cloud")

    return _in_place_of(handler, refuse)


def _unheard(handler: Handler) -> Handler:
    """A call that has its effect, and no answer; a stream is cut as it opens."""
    answer: Any = handler.unary_unary

    async def act(request: object, context: Context) -> None:
        if answer:
            await answer(request, context)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")

    return _in_place_of(handler, act)


def _in_place_of(handler: Handler, behaviour: Callable[[Any, Context], Awaitable[None]]) -> Handler:
    make = (
        grpc.stream_stream_rpc_method_handler
        if handler.request_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(behaviour, handler.request_deserializer, handler.response_serializer)
