"""
Long-running operations: an execution that runs is one, and every change that was over at once has
left one behind.

Source: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.operations
"""

from operator import itemgetter
from typing import Any, Final

from sublet.errors import InvalidRequest, NotFound
from sublet.local.iam.tokens import Caller
from sublet.local.run.executions import Executions
from sublet.local.run.guard import Guard
from sublet.local.run.jobs import RunState
from sublet.local.run.pages import page
from sublet.local.run.resources import CODES, Execution, Outcome
from sublet.local.run.templates import parse_seconds

Wire = dict[str, Any]

ANY: Final = "type.googleapis.com/google.cloud.run.v2"
_MAX_WAIT_S: Final = 30.0


class Operations:
    """google.longrunning.Operations, in the form of `RunService`."""

    def __init__(self, guard: Guard, state: RunState, executions: Executions) -> None:
        self._guard = guard
        self._state = state
        self._executions = executions

    async def get(self, caller: Caller, request: Wire) -> Wire:
        found = self._find(caller, request["name"], "operations.get")
        return of_execution(found) if isinstance(found, Execution) else found

    async def wait(self, caller: Caller, request: Wire) -> Wire:
        """The operation, when it is over or the time is up, of which there are 30 s at most."""
        found = self._find(caller, request["name"], "operations.get")
        if not isinstance(found, Execution):
            return found
        timeout_s = parse_seconds(request.get("timeout", f"{_MAX_WAIT_S}s"))
        return of_execution(await self._executions.wait(found.name, min(timeout_s, _MAX_WAIT_S)))

    async def list_all(self, caller: Caller, request: Wire) -> Wire:
        """The newest first."""
        location = str(request["name"]).removesuffix("/operations")
        self._guard.check(caller, "operations.list", location)
        if request.get("filter"):
            raise InvalidRequest(
                f"got filter {request['filter']!r}; this local cloud lists all: leave it out"
            )
        found = [
            (one.created_at, of_execution(one))
            for one in self._state.executions_of(f"{location}/jobs/-")
        ] + [
            (one.created_at, done(one.name, one.response))
            for one in self._state.finished_operations_under(location)
        ]
        found.sort(key=lambda pair: pair[0], reverse=True)
        return page("operations", found, request, itemgetter(1))

    async def delete(self, caller: Caller, request: Wire) -> Wire:
        """Nobody is interested any more; what it stands for goes on."""
        self._find(caller, request["name"], "operations.delete")
        self._state.forget_operation(request["name"])
        return {}

    def _find(self, caller: Caller, name: str, permission: str) -> Execution | Wire:
        """The execution that an operation is, or what a finished one answered."""
        if kept := self._state.finished_operation(name):
            self._guard.check(caller, permission, kept.job)
            return done(kept.name, kept.response)
        try:
            execution = self._state.execution_of_operation(name)
        except NotFound:
            self._guard.check(caller, permission, name.partition("/operations/")[0])
            raise
        self._guard.check(caller, permission, execution.job)
        return execution


def done(name: str, response: Wire) -> Wire:
    return {"name": name, "metadata": response, "done": True, "response": response}


def of_execution(execution: Execution) -> Wire:
    """
    The operation that RunJob answered: done when the execution is over, an error unless it
    succeeded.
    """
    wire = {"@type": f"{ANY}.Execution", **execution.to_wire()}
    operation: Wire = {"name": execution.operation, "metadata": wire, "done": False}
    match execution.outcome:
        case Outcome.RUNNING:
            return operation
        case Outcome.SUCCEEDED:
            return {**operation, "done": True, "response": wire}
        case failed:
            error = {"code": CODES[failed], "message": execution.message}
            return {**operation, "done": True, "error": error}
