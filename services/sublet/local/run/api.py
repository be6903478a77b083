"""
The Run Admin API v2, REST: jobs, executions and operations.

Source: https://cloud.google.com/run/docs/reference/rest
"""

from typing import Any, Final

from sublet.errors import InvalidRequest
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.run.executions import Executions
from sublet.local.run.jobs import (
    Execution,
    Job,
    Outcome,
    RunState,
    TaskTemplate,
    parse_seconds,
)
from sublet.local.web import Request, Response, Router, json_response
from sublet.names import Email

_SERVICE: Final = "run.googleapis.com"
_PARENT: Final = "/v2/projects/{project}/locations/{location}"
_TYPE: Final = "type.googleapis.com/google.cloud.run.v2"
_CODES: Final = {Outcome.FAILED: 10, Outcome.CANCELLED: 1}
_MAX_WAIT_S: Final = 30.0


class RunApi:
    def __init__(self, iam: Iam, state: RunState, executions: Executions) -> None:
        self._iam = iam
        self._state = state
        self._executions = executions

    def app(self) -> Router:
        router = Router()
        job = f"{_PARENT}/jobs/{{job}}"
        router.add("POST", f"{_PARENT}/jobs", self.create_job)
        router.add("GET", f"{_PARENT}/jobs", self.list_jobs)
        router.add("POST", f"{job}:run", self.run_job)
        router.add("GET", job, self.get_job)
        router.add("DELETE", job, self.delete_job)
        router.add("GET", f"{job}/executions", self.list_executions)
        router.add("POST", f"{job}/executions/{{execution}}:cancel", self.cancel_execution)
        router.add("GET", f"{job}/executions/{{execution}}", self.get_execution)
        router.add("POST", f"{_PARENT}/operations/{{operation}}:wait", self.wait_operation)
        router.add("GET", f"{_PARENT}/operations/{{operation}}", self.get_operation)
        return router

    async def create_job(self, request: Request) -> Response:
        """
        Whoever makes a job gives it an identity, so they need the right to act as that identity.
        """
        job_id = request.query.get("jobId")
        if not job_id:
            raise InvalidRequest("jobId is required")
        name = f"{_parent(request)}/jobs/{job_id}"
        self._authorize(request, "run.jobs.create", name)
        body = await request.json()
        self._authorize_acting_as(request, TaskTemplate.from_wire(body.get("template") or {}))
        return json_response(_done(self._state.create_job(name, body)))

    async def list_jobs(self, request: Request) -> Response:
        self._authorize(request, "run.jobs.list", _parent(request))
        return json_response(
            {"jobs": [j.to_wire() for j in self._state.jobs_under(_parent(request))]}
        )

    async def get_job(self, request: Request) -> Response:
        self._authorize(request, "run.jobs.get", _job_name(request))
        return json_response(self._state.job(_job_name(request)).to_wire())

    async def delete_job(self, request: Request) -> Response:
        self._authorize(request, "run.jobs.delete", _job_name(request))
        return json_response(_done(self._state.delete_job(_job_name(request))))

    async def run_job(self, request: Request) -> Response:
        overrides = (await request.json()).get("overrides") or {}
        self._authorize(request, "run.jobs.run", _job_name(request))
        if overrides:
            self._authorize(request, "run.jobs.runWithOverrides", _job_name(request))
        execution = self._state.create_execution(self._state.job(_job_name(request)), overrides)
        self._executions.start(execution)
        return json_response(_operation(execution))

    async def list_executions(self, request: Request) -> Response:
        self._authorize(request, "run.executions.list", _job_name(request))
        found = self._state.executions_of(_job_name(request))
        return json_response({"executions": [execution.to_wire() for execution in found]})

    async def get_execution(self, request: Request) -> Response:
        self._authorize(request, "run.executions.get", _job_name(request))
        return json_response(self._state.execution(_execution_name(request)).to_wire())

    async def cancel_execution(self, request: Request) -> Response:
        self._authorize(request, "run.executions.cancel", _job_name(request))
        return json_response(_operation(await self._executions.cancel(_execution_name(request))))

    async def get_operation(self, request: Request) -> Response:
        return json_response(_operation(self._execution_of_operation(request)))

    async def wait_operation(self, request: Request) -> Response:
        name = self._execution_of_operation(request).name
        timeout_s = parse_seconds((await request.json()).get("timeout", f"{_MAX_WAIT_S}s"))
        return json_response(
            _operation(await self._executions.wait(name, min(timeout_s, _MAX_WAIT_S)))
        )

    def _execution_of_operation(self, request: Request) -> Execution:
        operation = f"{_parent(request)}/operations/{request.parameters['operation']}"
        execution = self._state.execution_of_operation(operation)
        self._authorize(request, "run.operations.get", execution.job)
        return execution

    def _authorize_acting_as(self, request: Request, template: TaskTemplate) -> None:
        email = Email(template.service_account)
        account = self._iam.service_accounts.get(email)
        policies = (account.resource, f"projects/{account.project}")
        target = Target(policies=policies, name=account.resource, service="iam.googleapis.com")
        caller = self._iam.tokens.resolve(request.authorization)
        self._iam.authorize(caller, "iam.serviceAccounts.actAs", target)

    def _authorize(self, request: Request, permission: str, name: str) -> None:
        project = "/".join(name.split("/")[:2])
        target = Target(policies=(name, project), name=name, service=_SERVICE)
        caller = self._iam.tokens.resolve(request.authorization)
        self._iam.authorize(caller, permission, target)


def _parent(request: Request) -> str:
    parts = request.parameters
    return f"projects/{parts['project']}/locations/{parts['location']}"


def _job_name(request: Request) -> str:
    return f"{_parent(request)}/jobs/{request.parameters['job']}"


def _execution_name(request: Request) -> str:
    return f"{_job_name(request)}/executions/{request.parameters['execution']}"


def _done(job: Job) -> dict[str, Any]:
    """An operation that is over already; nothing asks for it again."""
    parent = job.name.partition("/jobs/")[0]
    return {
        "name": f"{parent}/operations/{job.uid}",
        "done": True,
        "response": {"@type": f"{_TYPE}.Job", **job.to_wire()},
    }


def _operation(execution: Execution) -> dict[str, Any]:
    wire = {"@type": f"{_TYPE}.Execution", **execution.to_wire()}
    operation: dict[str, Any] = {"name": execution.operation, "metadata": wire, "done": False}
    match execution.outcome:
        case Outcome.RUNNING:
            return operation
        case Outcome.SUCCEEDED:
            return {**operation, "done": True, "response": wire}
        case failed:
            error = {"code": _CODES[failed], "message": execution.message}
            return {**operation, "done": True, "error": error}
