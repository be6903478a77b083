"""A gRPC proxy that loses what it is told to lose: a request on its way, or an answer."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto

import grpc


class Loses(Enum):
    REQUEST = auto()
    ANSWER = auto()


class LossyProxy:
    """
    Orders are carried out one a call, in turn, on calls of the method that they are for; a code in
    place of a loss is what the call is answered with instead of being passed on.
    """

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._orders: list[tuple[str, Loses | grpc.StatusCode, Callable[[], None]]] = []
        self.calls: list[str] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers([_Handler(self._pass_on)])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def order(
        self, method: str, fault: Loses | grpc.StatusCode, then: Callable[[], None] = lambda: None
    ) -> None:
        self._orders.append((method, fault, then))

    def stop(self) -> None:
        self._server.stop(grace=None).wait()
        self._channel.close()

    def _pass_on(self, path, request, context):
        method = path.rpartition("/")[2]
        self.calls.append(method)
        fault, then = None, None
        if self._orders and self._orders[0][0] == method:
            _, fault, then = self._orders.pop(0)
        if isinstance(fault, grpc.StatusCode):
            context.abort(fault, "so ordered")
        if fault is Loses.REQUEST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the request was lost")
        metadata = [(k, v) for k, v in context.invocation_metadata() if not k.startswith("grpc-")]
        answers = self._channel.unary_stream(path)(request, metadata=metadata, timeout=10)
        try:
            answers = list(answers)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        if fault is Loses.ANSWER:
            then()
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer was lost")
        yield from answers


class _Handler(grpc.GenericRpcHandler):
    """Bytes in, bytes out; a single answer is a stream of one."""

    def __init__(self, pass_on) -> None:
        self._pass_on = pass_on

    def service(self, details):
        def handle(request, context):
            return self._pass_on(details.method, request, context)

        return grpc.unary_stream_rpc_method_handler(handle)
