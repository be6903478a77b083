"""Long-running operations: what runs, what is over, and what became of it."""

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.longrunning import operations_pb2
from local_cloud.run.running import PARENT, STUBBORN, Clients, log_of, make, wait_until


@pytest.fixture
def operations(clients):
    """google.longrunning's methods as a client of Run offers them."""
    return clients.jobs


def parsed(answer) -> operations_pb2.Operation:
    """google-cloud-run 0.16 leaves what gRPC's WaitOperation answers as it came: in bytes."""
    is_raw = isinstance(answer, bytes)
    return operations_pb2.Operation.FromString(answer) if is_raw else answer


def test_an_operation_shows_its_execution_while_it_runs(cloud, clients, operations):
    made = clients.jobs.run_job(name=make(cloud, STUBBORN))
    name = made.operation.name
    wait_until(lambda: "up" in log_of(cloud, made.metadata.name))
    request = operations_pb2.GetOperationRequest(name=name)
    running = operations.get_operation(request)
    assert (running.name, running.done) == (name, False)
    assert running.metadata.type_url.endswith("google.cloud.run.v2.Execution")
    clients.executions.cancel_execution(name=made.metadata.name).result(20)
    over = operations.get_operation(request)
    assert (over.done, over.error.code, over.WhichOneof("result")) == (True, 1, "error")


def test_a_failed_execution_is_an_operation_with_an_error(cloud, clients, operations):
    made = clients.jobs.run_job(name=make(cloud, "raise SystemExit(3)"))
    with pytest.raises(google_errors.Aborted):
        made.result(20)
    over = operations.get_operation(operations_pb2.GetOperationRequest(name=made.operation.name))
    assert (over.done, over.error.code) == (True, 10)
    assert "exit code 3" in over.error.message


def test_waiting_returns_when_it_is_over_or_the_time_is_up(cloud, clients, operations):
    quick = clients.jobs.run_job(name=make(cloud, "pass")).operation.name
    request = operations_pb2.WaitOperationRequest(name=quick)
    assert parsed(operations.wait_operation(request)).done
    slow = clients.jobs.run_job(name=make(cloud, STUBBORN))
    request = operations_pb2.WaitOperationRequest(name=slow.operation.name)
    request.timeout.FromMilliseconds(50)
    assert not parsed(operations.wait_operation(request)).done
    clients.executions.cancel_execution(name=slow.metadata.name).result(20)


def test_a_change_that_is_over_can_be_asked_about_until_it_is_deleted(cloud, clients, operations):
    job = make(cloud, "pass")
    name = clients.jobs.delete_job(name=job).operation.name
    request = operations_pb2.GetOperationRequest(name=name)
    kept = operations.get_operation(request)
    assert kept.done
    assert kept.response.type_url.endswith("google.cloud.run.v2.Job")
    operations.delete_operation(operations_pb2.DeleteOperationRequest(name=name))
    with pytest.raises(google_errors.NotFound):
        operations.get_operation(request)


def test_operations_are_listed_newest_first(cloud, clients):
    job = make(cloud, "pass")
    run = clients.jobs.run_job(name=job)
    run.result(20)
    deleted = clients.executions.delete_execution(name=run.metadata.name)
    again = clients.jobs.run_job(name=job)
    again.result(20)
    url = f"{cloud.addresses.run}/v2/{PARENT}/operations"
    listed = requests.get(url, params={"pageSize": 2}, timeout=10).json()
    names = [operation["name"] for operation in listed["operations"]]
    assert names == [again.operation.name, deleted.operation.name]
    assert listed["nextPageToken"]


def test_an_operation_that_is_not_there_is_not_found(operations):
    with pytest.raises(google_errors.NotFound):
        operations.get_operation(
            operations_pb2.GetOperationRequest(name=f"{PARENT}/operations/none")
        )


def test_finished_operations_survive_a_restart(own_cloud):
    cloud = own_cloud()
    jobs = Clients(cloud, "rest").jobs
    name = jobs.delete_job(name=make(cloud, "pass")).operation.name
    cloud.restart()
    request = operations_pb2.GetOperationRequest(name=name)
    assert Clients(cloud, "grpc").jobs.get_operation(request).done
