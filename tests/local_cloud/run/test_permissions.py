"""Who may do what with jobs, by REST and by gRPC alike."""

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.cloud import run_v2
from google.longrunning import operations_pb2
from local_cloud.run.running import PARENT, Clients, job_of, make

PROJECT = "projects/platform-project"
ACTS_AS = "roles/iam.serviceAccountUser"


def test_running_a_job_needs_the_right_to_it_and_overrides_another(cloud, clients):
    job, caller = make(cloud, "pass"), cloud.account()
    cloud.allow(job, "roles/run.jobsExecutor", caller)
    jobs = clients.of(caller).jobs
    jobs.run_job(name=job)
    overrides = run_v2.RunJobRequest.Overrides(task_count=2)
    with pytest.raises(google_errors.Forbidden, match="runWithOverrides"):
        jobs.run_job(run_v2.RunJobRequest(name=job, overrides=overrides))
    with pytest.raises(google_errors.Forbidden, match=r"run\.jobs\.delete"):
        jobs.delete_job(name=job)


@pytest.mark.parametrize("verb", ["create", "update"])
def test_making_or_changing_a_job_needs_the_right_to_act_as_its_identity(cloud, clients, verb):
    target, caller = cloud.account(), cloud.account()
    role = f"{PROJECT}/roles/jobMaker"
    permissions = frozenset({"run.jobs.create", "run.jobs.update"})
    cloud.do(lambda inside: inside.iam.create_role(role, permissions))
    cloud.allow(PROJECT, role, caller)
    jobs, job = clients.of(caller).jobs, job_of("pass", target)

    def attempt():
        if verb == "create":
            return jobs.create_job(parent=PARENT, job=job, job_id=cloud.name("mine"))
        job.name = make(cloud, "pass")
        return jobs.update_job(job=job)

    with pytest.raises(google_errors.Forbidden, match="actAs"):
        attempt()
    cloud.allow(f"projects/-/serviceAccounts/{target}", ACTS_AS, caller)
    attempt()


def test_every_method_needs_its_own_permission(cloud, clients):
    job = make(cloud, "pass")
    operation = clients.jobs.run_job(name=job)
    execution = operation.result(20).name
    (task,) = clients.tasks.list_tasks(parent=execution)
    mine = clients.of(cloud.account())
    by_name = operations_pb2.GetOperationRequest(name=operation.operation.name)
    for permission, attempt in {
        "jobs.create": lambda: mine.jobs.create_job(parent=PARENT, job={}, job_id="a"),
        "jobs.get": lambda: mine.jobs.get_job(name=job),
        "jobs.list": lambda: mine.jobs.list_jobs(parent=PARENT),
        "jobs.update": lambda: mine.jobs.update_job(job={"name": job}),
        "jobs.delete": lambda: mine.jobs.delete_job(name=job),
        "jobs.run": lambda: mine.jobs.run_job(name=job),
        "jobs.getIamPolicy": lambda: mine.jobs.get_iam_policy({"resource": job}),
        "jobs.setIamPolicy": lambda: mine.jobs.set_iam_policy({"resource": job}),
        "executions.get": lambda: mine.executions.get_execution(name=execution),
        "executions.list": lambda: mine.executions.list_executions(parent=job),
        "executions.cancel": lambda: mine.executions.cancel_execution(name=execution),
        "executions.delete": lambda: mine.executions.delete_execution(name=execution),
        "tasks.get": lambda: mine.tasks.get_task(name=task.name),
        "tasks.list": lambda: mine.tasks.list_tasks(parent=execution),
        "operations.get": lambda: mine.jobs.get_operation(by_name),
    }.items():
        with pytest.raises(google_errors.Forbidden, match=rf"run\.{permission} "):
            attempt()


def test_a_call_without_a_token_or_with_a_strangers_is_refused(own_cloud):
    cloud = own_cloud(anonymous_is_owner=False)
    unknown = "ya29.nobody-issued-this"
    for token in (unknown, None):
        with pytest.raises(google_errors.Unauthenticated):
            Clients(cloud, "grpc", token).jobs.list_jobs(parent=PARENT)
    for headers in ({"Authorization": f"Bearer {unknown}"}, {}):
        url = f"{cloud.addresses.run}/v2/{PARENT}/jobs"
        assert requests.get(url, headers=headers, timeout=10).status_code == 401


def test_a_jobs_policy_is_read_written_and_never_lost_to_a_race(cloud, clients):
    job, caller = make(cloud, "pass"), cloud.account()
    empty = clients.jobs.get_iam_policy({"resource": job})
    assert not empty.bindings
    binding = {"role": "roles/run.viewer", "members": [f"serviceAccount:{caller}"]}
    policy = {"etag": empty.etag, "bindings": [binding]}
    kept = clients.jobs.set_iam_policy({"resource": job, "policy": policy})
    assert kept == clients.jobs.get_iam_policy({"resource": job})
    assert clients.of(caller).jobs.get_job(name=job).name == job
    with pytest.raises(google_errors.Conflict):
        clients.jobs.set_iam_policy({"resource": job, "policy": {"etag": empty.etag}})


def test_a_condition_of_a_jobs_policy_decides_and_is_shown_to_version_three(cloud, clients):
    job, other, caller = make(cloud, "pass"), make(cloud, "pass"), cloud.account()
    condition = {"title": "c", "expression": f"resource.name == '{job}'"}
    binding = {"role": "roles/run.viewer", "members": [f"serviceAccount:{caller}"]}
    policy = {"version": 3, "bindings": [{**binding, "condition": condition}]}
    for resource in (job, other):
        clients.jobs.set_iam_policy({"resource": resource, "policy": policy})
    mine = clients.of(caller).jobs
    assert mine.get_job(name=job).name == job
    with pytest.raises(google_errors.Forbidden):
        mine.get_job(name=other)
    request = {"resource": job, "options": {"requested_policy_version": 3}}
    whole = clients.jobs.get_iam_policy(request)
    assert whole.bindings[0].condition.expression == condition["expression"]
    hidden = clients.jobs.get_iam_policy({"resource": job})
    assert "_withcond_" in hidden.bindings[0].role


def test_a_permission_test_tells_what_one_may(cloud, clients):
    job, caller = make(cloud, "pass"), cloud.account()
    cloud.allow(job, "roles/run.invoker", caller)
    asked = {"resource": job, "permissions": ["run.jobs.run", "run.jobs.delete"]}
    answer = clients.of(caller).jobs.test_iam_permissions(asked)
    assert list(answer.permissions) == ["run.jobs.run"]
