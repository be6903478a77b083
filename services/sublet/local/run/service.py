"""
The Run Admin API v2 for jobs: every method takes who calls and a request in the JSON form of its
protobuf, and gives an answer in that form. REST and gRPC only carry them.

Source: https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs
"""

from typing import Any

from sublet.errors import InvalidRequest, NotFound
from sublet.local.iam.enforcement import Iam
from sublet.local.iam.tokens import Caller
from sublet.local.run.executions import Executions
from sublet.local.run.guard import Guard, target_of_job
from sublet.local.run.jobs import RunState
from sublet.local.run.operations import ANY, Operations, done, of_execution
from sublet.local.run.pages import page
from sublet.local.run.resources import Execution, Job, check_etag

Wire = dict[str, Any]


class RunService:
    def __init__(self, iam: Iam, state: RunState, executions: Executions) -> None:
        self._iam = iam
        self._state = state
        self._executions = executions
        self._guard = Guard(iam)
        self.operations = Operations(self._guard, state, executions)

    # --- jobs -------------------------------------------------------------------------------------

    async def create_job(self, caller: Caller, request: Wire) -> Wire:
        """
        Whoever makes a job gives it an identity, so they need the right to act as that identity.
        """
        job_id = request.get("jobId")
        if not job_id:
            raise InvalidRequest("jobId is required")
        name, body = f"{request['parent']}/jobs/{job_id}", request.get("job") or {}
        self._guard.check(caller, "jobs.create", name)
        job = self._state.new_job(name, body, creator=caller.email or "")
        self._guard.check_act_as(caller, job.template)
        if request.get("validateOnly"):
            return self._job_done(job, keep=False)
        job = self._state.create_job(name, body, creator=caller.email or "")
        return self._job_done(job)

    async def update_job(self, caller: Caller, request: Wire) -> Wire:
        """Everything of the job as it is sent; what is left out goes back to its default."""
        body = request.get("job") or {}
        name = str(body.get("name", ""))
        self._guard.check(caller, "jobs.update", name)
        if self._state.find_job(name) is None and request.get("allowMissing"):
            parent, _, job_id = name.partition("/jobs/")
            return await self.create_job(caller, {**request, "parent": parent, "jobId": job_id})
        check_etag(body.get("etag"), self._state.job(name))
        modifier = caller.email or ""
        job = self._state.changed_job(name, body, modifier=modifier)
        self._guard.check_act_as(caller, job.template)
        if request.get("validateOnly"):
            return self._job_done(job, keep=False)
        return self._job_done(self._state.update_job(name, body, modifier=modifier))

    async def get_job(self, caller: Caller, request: Wire) -> Wire:
        self._guard.check(caller, "jobs.get", request["name"])
        return self._state.job_to_wire(self._state.job(request["name"]))

    async def list_jobs(self, caller: Caller, request: Wire) -> Wire:
        self._guard.check(caller, "jobs.list", request["parent"])
        jobs = self._state.jobs_under(request["parent"])
        return page("jobs", jobs, request, self._state.job_to_wire)

    async def delete_job(self, caller: Caller, request: Wire) -> Wire:
        """With its executions, those that run included, and its policy."""
        name = request["name"]
        self._guard.check(caller, "jobs.delete", name)
        job = self._state.job(name)
        check_etag(request.get("etag"), job)
        if request.get("validateOnly"):
            return self._job_done(job, keep=False)
        for execution in self._state.executions_of(name):
            await self._executions.cancel(execution.name)
        self._state.delete_job(name)
        self._iam.policies.delete(name)
        return self._job_done(job)

    async def run_job(self, caller: Caller, request: Wire) -> Wire:
        name, overrides = request["name"], request.get("overrides") or {}
        self._guard.check(caller, "jobs.run", name)
        if overrides:
            self._guard.check(caller, "jobs.runWithOverrides", name)
        job = self._state.job(name)
        check_etag(request.get("etag"), job)
        execution = self._state.new_execution(
            job,
            overrides,
            creator=caller.email or "",
            log_directory=str(self._executions.logs),
        )
        if request.get("validateOnly"):
            return done(f"{execution.operation}", _execution_response(execution))
        self._state.create_execution(job, execution)
        self._executions.start(execution)
        return of_execution(execution)

    # --- policies ---------------------------------------------------------------------------------

    async def get_policy(self, caller: Caller, request: Wire) -> Wire:
        name = request["resource"]
        self._guard.check(caller, "jobs.getIamPolicy", name)
        self._state.job(name)
        version = int((request.get("options") or {}).get("requestedPolicyVersion", 1))
        return self._guard.policies.read(name, version)

    async def set_policy(self, caller: Caller, request: Wire) -> Wire:
        name = request["resource"]
        self._guard.check(caller, "jobs.setIamPolicy", name)
        self._state.job(name)
        return self._guard.policies.write(name, request.get("policy"))

    async def test_permissions(self, caller: Caller, request: Wire) -> Wire:
        target = target_of_job(request["resource"])
        return self._guard.policies.permitted(caller, request.get("permissions", []), target)

    # --- executions and tasks ---------------------------------------------------------------------

    async def get_execution(self, caller: Caller, request: Wire) -> Wire:
        self._guard.check(caller, "executions.get", request["name"])
        return self._state.execution(request["name"]).to_wire()

    async def list_executions(self, caller: Caller, request: Wire) -> Wire:
        """Of one job, or of every job of a location: `.../jobs/-`."""
        parent = request["parent"]
        everywhere = parent.endswith("/jobs/-")
        self._guard.check(
            caller, "executions.list", parent.removesuffix("/jobs/-") if everywhere else parent
        )
        if not everywhere:
            self._state.job(parent)
        return page("executions", self._state.executions_of(parent), request, Execution.to_wire)

    async def cancel_execution(self, caller: Caller, request: Wire) -> Wire:
        execution = self._execution(caller, request, "executions.cancel")
        if not request.get("validateOnly"):
            execution = await self._executions.cancel(execution.name)
        return self._execution_done(execution, keep=not request.get("validateOnly"))

    async def delete_execution(self, caller: Caller, request: Wire) -> Wire:
        """What runs of it ends first."""
        execution = self._execution(caller, request, "executions.delete")
        if not request.get("validateOnly"):
            execution = await self._executions.cancel(execution.name)
            self._state.delete_execution(execution.name)
        return self._execution_done(execution, keep=not request.get("validateOnly"))

    async def get_task(self, caller: Caller, request: Wire) -> Wire:
        name = request["name"]
        self._guard.check(caller, "tasks.get", name)
        execution = self._state.execution(name.partition("/tasks/")[0])
        for index in range(len(execution.tasks)):
            if execution.task_name(index) == name:
                return execution.task_to_wire(index)
        raise NotFound(f"Resource '{name}' was not found")

    async def list_tasks(self, caller: Caller, request: Wire) -> Wire:
        self._guard.check(caller, "tasks.list", request["parent"])
        execution = self._state.execution(request["parent"])
        indexes = range(len(execution.tasks))
        return page("tasks", indexes, request, execution.task_to_wire)

    def _execution(self, caller: Caller, request: Wire, permission: str) -> Execution:
        self._guard.check(caller, permission, request["name"])
        execution = self._state.execution(request["name"])
        check_etag(request.get("etag"), execution)
        return execution

    def _job_done(self, job: Job, *, keep: bool = True) -> Wire:
        response = {"@type": f"{ANY}.Job", **self._state.job_to_wire(job)}
        return self._answer(job.name, response, keep=keep)

    def _execution_done(self, execution: Execution, *, keep: bool) -> Wire:
        return self._answer(execution.job, _execution_response(execution), keep=keep)

    def _answer(self, job: str, response: Wire, *, keep: bool) -> Wire:
        """An operation that is over already; of a mere validation nothing is kept."""
        if not keep:
            return done(f"{job.partition('/jobs/')[0]}/operations/validated", response)
        operation = self._state.finish_operation(job, response)
        return done(operation.name, operation.response)


def _execution_response(execution: Execution) -> Wire:
    return {"@type": f"{ANY}.Execution", **execution.to_wire()}
