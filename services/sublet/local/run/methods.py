"""
Every method of the API with its names on both wires: the service and the protobuf messages of gRPC,
the verb and the path of REST.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2  # type: ignore[import-untyped]
from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import empty_pb2, json_format

from sublet.errors import InvalidRequest
from sublet.local.grpc_calls import Proto
from sublet.local.iam.tokens import Caller
from sublet.local.run.service import RunService

Wire = dict[str, Any]
Answer = Callable[[Caller, Wire], Awaitable[Wire]]

LOCATION: Final = "projects/{project}/locations/{location}"
JOB: Final = f"{LOCATION}/jobs/{{job}}"
EXECUTION: Final = f"{JOB}/executions/{{execution}}"
TASK: Final = f"{EXECUTION}/tasks/{{task}}"
OPERATION: Final = f"{LOCATION}/operations/{{operation}}"
_LONG_RUNNING: Final = "google.longrunning.Operations"


@dataclass(frozen=True, slots=True)
class Method:
    """
    `resource` is the template of the path's resource, which goes into the request's `field`;
    `suffix` follows it. The body is the whole rest of the request, or one field of it.
    """

    service: str
    name: str
    request: Proto
    response: Proto
    answer: Answer
    verb: str
    resource: str
    suffix: str = ""
    field: str = "name"
    body: str = ""

    @property
    def path(self) -> str:
        return f"/v2/{self.resource}{self.suffix}"

    def normalized(self, wire: Wire) -> Wire:
        """
        A request as JSON has it, in the one form that every client's comes to.

        Raises:
            InvalidRequest: a field is unknown, or of the wrong kind.
        """
        try:
            return self.as_json(json_format.ParseDict(wire, self.request()))
        except json_format.ParseError as error:
            raise InvalidRequest(f"{self.name}: {error}") from None

    def as_json(self, request: Proto) -> Wire:
        """
        Raises:
            InvalidRequest: it does not say which resource it is about.
        """
        wire: Wire = json_format.MessageToDict(request)
        found: Any = wire
        for name in self.field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        if not found:
            raise InvalidRequest(f"{self.name}: {self.field} is required")
        return wire


def methods_of(service: RunService) -> list[Method]:
    return [
        *_job_methods(service),
        *_policy_methods(service),
        *_execution_methods(service),
        *_operation_methods(service),
    ]


def _job_methods(service: RunService) -> list[Method]:
    jobs, operation, job = "google.cloud.run.v2.Jobs", operations_pb2.Operation, run_v2.Job.pb()
    create, update = run_v2.CreateJobRequest.pb(), run_v2.UpdateJobRequest.pb()
    delete, run = run_v2.DeleteJobRequest.pb(), run_v2.RunJobRequest.pb()
    found = run_v2.ListJobsResponse.pb()
    return [
        Method(
            *(jobs, "CreateJob", create, operation, service.create_job),
            *("POST", LOCATION, "/jobs", "parent", "job"),
        ),
        Method(
            *(jobs, "ListJobs", run_v2.ListJobsRequest.pb(), found, service.list_jobs),
            *("GET", LOCATION, "/jobs", "parent"),
        ),
        Method(
            *(jobs, "RunJob", run, operation, service.run_job),
            *("POST", JOB, ":run", "name", "*"),
        ),
        Method(jobs, "GetJob", run_v2.GetJobRequest.pb(), job, service.get_job, "GET", JOB),
        Method(
            *(jobs, "UpdateJob", update, operation, service.update_job),
            *("PATCH", JOB, "", "job.name", "job"),
        ),
        Method(jobs, "DeleteJob", delete, operation, service.delete_job, "DELETE", JOB),
    ]


def _policy_methods(service: RunService) -> list[Method]:
    jobs, policy = "google.cloud.run.v2.Jobs", policy_pb2.Policy
    get, write = iam_policy_pb2.GetIamPolicyRequest, iam_policy_pb2.SetIamPolicyRequest
    test = iam_policy_pb2.TestIamPermissionsRequest
    permitted = iam_policy_pb2.TestIamPermissionsResponse
    return [
        Method(
            *(jobs, "GetIamPolicy", get, policy, service.get_policy),
            *("GET", JOB, ":getIamPolicy", "resource"),
        ),
        Method(
            *(jobs, "SetIamPolicy", write, policy, service.set_policy),
            *("POST", JOB, ":setIamPolicy", "resource", "*"),
        ),
        Method(
            *(jobs, "TestIamPermissions", test, permitted, service.test_permissions),
            *("POST", JOB, ":testIamPermissions", "resource", "*"),
        ),
    ]


def _execution_methods(service: RunService) -> list[Method]:
    executions, tasks = "google.cloud.run.v2.Executions", "google.cloud.run.v2.Tasks"
    operation, execution = operations_pb2.Operation, run_v2.Execution.pb()
    get, found = run_v2.GetExecutionRequest.pb(), run_v2.ListExecutionsResponse.pb()
    look = run_v2.ListExecutionsRequest.pb()
    cancel, delete = run_v2.CancelExecutionRequest.pb(), run_v2.DeleteExecutionRequest.pb()
    get_task, task = run_v2.GetTaskRequest.pb(), run_v2.Task.pb()
    look_for_tasks, found_tasks = run_v2.ListTasksRequest.pb(), run_v2.ListTasksResponse.pb()
    return [
        Method(
            *(executions, "ListExecutions", look, found, service.list_executions),
            *("GET", JOB, "/executions", "parent"),
        ),
        Method(
            *(executions, "CancelExecution", cancel, operation, service.cancel_execution),
            *("POST", EXECUTION, ":cancel", "name", "*"),
        ),
        Method(
            *(executions, "GetExecution", get, execution, service.get_execution),
            *("GET", EXECUTION),
        ),
        Method(
            *(executions, "DeleteExecution", delete, operation, service.delete_execution),
            *("DELETE", EXECUTION),
        ),
        Method(
            *(tasks, "ListTasks", look_for_tasks, found_tasks, service.list_tasks),
            *("GET", EXECUTION, "/tasks", "parent"),
        ),
        Method(tasks, "GetTask", get_task, task, service.get_task, "GET", TASK),
    ]


def _operation_methods(service: RunService) -> list[Method]:
    here, operation = service.operations, operations_pb2.Operation
    get, wait = operations_pb2.GetOperationRequest, operations_pb2.WaitOperationRequest
    look, found = operations_pb2.ListOperationsRequest, operations_pb2.ListOperationsResponse
    delete = operations_pb2.DeleteOperationRequest
    return [
        Method(
            *(_LONG_RUNNING, "WaitOperation", wait, operation, here.wait),
            *("POST", OPERATION, ":wait", "name", "*"),
        ),
        Method(_LONG_RUNNING, "GetOperation", get, operation, here.get, "GET", OPERATION),
        Method(
            *(_LONG_RUNNING, "ListOperations", look, found, here.list_all),
            *("GET", LOCATION, "/operations"),
        ),
        Method(
            *(_LONG_RUNNING, "DeleteOperation", delete, empty_pb2.Empty, here.delete),
            *("DELETE", OPERATION),
        ),
    ]
