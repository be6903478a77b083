"""
The Run Admin API v2 over REST: a path and a query and a body become one request.

Source: https://cloud.google.com/run/docs/reference/rest,
    https://google.aip.dev/127
"""

from typing import Any, Final

from sublet.local.iam.enforcement import Iam
from sublet.local.run.executions import Executions
from sublet.local.run.jobs import RunState
from sublet.local.run.methods import Method, methods_of
from sublet.local.run.service import RunService
from sublet.local.web import Handler, Request, Response, Router, json_response

_OF_EVERY_API: Final = frozenset({"$alt", "alt", "fields", "key", "prettyPrint", "$prettyPrint"})
_BOOLEANS: Final = {"true": True, "false": False}


class RunApi:
    def __init__(self, iam: Iam, state: RunState, executions: Executions) -> None:
        self._iam = iam
        self.service = RunService(iam, state, executions)

    def app(self) -> Router:
        router = Router()
        # A path with a verb would pass for one without, whose last name has a colon in it.
        for method in sorted(methods_of(self.service), key=lambda m: not m.suffix.startswith(":")):
            router.add(method.verb, method.path, self._handler(method))
        return router

    def _handler(self, method: Method) -> Handler:
        async def answer(request: Request) -> Response:
            caller = self._iam.tokens.resolve(request.authorization)
            wire = method.normalized(await _request_of(method, request))
            return json_response(await method.answer(caller, wire))

        return answer


async def _request_of(method: Method, request: Request) -> dict[str, Any]:
    wire: dict[str, Any] = {}
    for name, value in request.query_items:
        if name not in _OF_EVERY_API:
            _put(wire, name, _BOOLEANS.get(value.lower(), value))
    if method.body == "*":
        wire |= await request.json()
    elif method.body:
        wire[method.body] = await request.json()
    _put(wire, method.field, method.resource.format(**request.parameters))
    return wire


def _put(wire: dict[str, Any], path: str, value: object) -> None:
    """Set `a.b` to a value, in the message that `a` is."""
    *messages, field = path.split(".")
    for message in messages:
        inner = wire.setdefault(message, {})
        if not isinstance(inner, dict):
            return  # the message is not one, which whoever reads the request says better
        wire = inner
    wire[field] = value
