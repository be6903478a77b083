"""Jobs: made, found, changed and deleted, by REST and by gRPC alike."""

import pytest
import requests
from google.api_core import exceptions as google_errors
from google.cloud import run_v2
from local_cloud.run.running import PARENT, STUBBORN, Clients, job_of, log_of, make, wait_until


def test_jobs_are_found_listed_and_deleted(cloud, jobs):
    job = make(cloud, "pass")
    assert job in [found.name for found in jobs.list_jobs(parent=PARENT)]
    with pytest.raises(google_errors.Conflict):
        jobs.create_job(parent=PARENT, job=jobs.get_job(name=job), job_id=job.rpartition("/")[2])
    jobs.delete_job(name=job).result(10)
    with pytest.raises(google_errors.NotFound):
        jobs.get_job(name=job)


def test_a_job_is_read_as_it_was_written(cloud, jobs):
    email, name = cloud.account(), cloud.name("job")
    written = job_of("pass", email, retries=0, timeout_s=90, env={"A": "b"}, tasks=3, parallelism=2)
    written.labels = {"team": "a"}
    written.annotations = {"note": "kept"}
    written.client = "a test"
    container = written.template.template.containers[0]
    container.resources = run_v2.ResourceRequirements(limits={"memory": "2Gi", "cpu": "4"})
    made = jobs.create_job(parent=PARENT, job=written, job_id=name).result(10)
    assert made == jobs.get_job(name=f"{PARENT}/jobs/{name}")
    assert made.template == written.template
    assert (made.labels, made.annotations, made.client) == (
        written.labels,
        written.annotations,
        "a test",
    )
    assert (made.generation, made.execution_count) == (1, 0)
    assert made.terminal_condition.state is run_v2.Condition.State.CONDITION_SUCCEEDED


def test_lists_come_by_the_page(own_cloud):
    cloud = own_cloud()
    names = [make(cloud, "pass") for _ in range(3)]
    for transport in ("rest", "grpc"):
        request = run_v2.ListJobsRequest(parent=PARENT, page_size=2)
        pages = list(Clients(cloud, transport).jobs.list_jobs(request).pages)
        assert [[job.name for job in page.jobs] for page in pages] == [names[:2], names[2:]]


def test_a_changed_job_runs_as_it_says_now_and_a_running_execution_as_it_said(cloud, clients):
    job = clients.jobs.get_job(name=make(cloud, STUBBORN))
    running = clients.jobs.run_job(name=job.name)
    wait_until(lambda: "up" in log_of(cloud, running.metadata.name))
    job.template.template.containers[0].command[-1] = "print('changed')"
    job.labels = {"version": "2"}
    changed = clients.jobs.update_job(job=job).result(10)
    assert (changed.uid, changed.generation, changed.labels) == (job.uid, 2, {"version": "2"})
    assert changed.update_time > changed.create_time
    execution = clients.jobs.run_job(name=job.name).result(20)
    assert log_of(cloud, execution.name) == "changed\n"
    still = clients.executions.get_execution(name=running.metadata.name)
    assert still.running_count == 1
    clients.executions.cancel_execution(name=still.name).result(20)


def test_a_job_that_is_missing_is_made_by_a_change_only_if_asked(cloud, jobs):
    job = job_of("pass", cloud.account())
    job.name = f"{PARENT}/jobs/{cloud.name('job')}"
    with pytest.raises(google_errors.NotFound):
        jobs.update_job(job=job)
    jobs.update_job(run_v2.UpdateJobRequest(job=job, allow_missing=True)).result(10)
    assert jobs.get_job(name=job.name).generation == 1


def test_nothing_is_changed_deleted_or_run_over_somebody_elses_change(cloud, jobs):
    job = jobs.get_job(name=make(cloud, "pass"))
    stale = job.etag
    job.template.task_count = 2
    current = jobs.update_job(job=job).result(10)
    assert current.etag != stale
    for refused in (
        lambda: jobs.update_job(job=job),
        lambda: jobs.delete_job(run_v2.DeleteJobRequest(name=job.name, etag=stale)),
        lambda: jobs.run_job(run_v2.RunJobRequest(name=job.name, etag=stale)),
    ):
        with pytest.raises(google_errors.Conflict):
            refused()
    assert jobs.get_job(name=job.name) == current
    jobs.delete_job(run_v2.DeleteJobRequest(name=job.name, etag=current.etag)).result(10)


def test_a_validated_request_changes_nothing(cloud, clients):
    jobs, email, name = clients.jobs, cloud.account(), cloud.name("job")
    request = run_v2.CreateJobRequest(
        parent=PARENT, job=job_of("pass", email), job_id=name, validate_only=True
    )
    assert jobs.create_job(request).result(10).name == f"{PARENT}/jobs/{name}"
    with pytest.raises(google_errors.NotFound):
        jobs.get_job(name=f"{PARENT}/jobs/{name}")
    job = jobs.get_job(name=make(cloud, "pass"))
    jobs.run_job(run_v2.RunJobRequest(name=job.name, validate_only=True)).result(10)
    jobs.delete_job(run_v2.DeleteJobRequest(name=job.name, validate_only=True)).result(10)
    changed = run_v2.Job(job)
    changed.labels = {"a": "b"}
    jobs.update_job(run_v2.UpdateJobRequest(job=changed, validate_only=True)).result(10)
    assert jobs.get_job(name=job.name) == job
    assert list(clients.executions.list_executions(parent=job.name)) == []
    bad = job_of("pass", email, retries=11)
    with pytest.raises(google_errors.BadRequest, match="maxRetries"):
        jobs.create_job(
            run_v2.CreateJobRequest(parent=PARENT, job=bad, job_id=name, validate_only=True)
        )


def test_deleting_a_job_ends_what_runs_of_it_and_its_policy(cloud, clients):
    job, caller = make(cloud, STUBBORN), cloud.account()
    cloud.allow(job, "roles/run.invoker", caller)
    operation = clients.jobs.run_job(name=job)
    wait_until(lambda: "up" in log_of(cloud, operation.metadata.name))
    clients.jobs.delete_job(name=job).result(20)
    assert log_of(cloud, operation.metadata.name).split() == ["up", "term"]
    with pytest.raises(google_errors.NotFound):
        clients.executions.get_execution(name=operation.metadata.name)
    clients.jobs.create_job(
        parent=PARENT, job=job_of("pass", cloud.account()), job_id=job.rpartition("/")[2]
    ).result(10)
    with pytest.raises(google_errors.Forbidden):
        clients.of(caller).jobs.run_job(name=job)


def test_a_job_tells_of_its_latest_execution(cloud, clients):
    job = make(cloud, "pass")
    execution = clients.jobs.run_job(name=job).result(20)
    found = clients.jobs.get_job(name=job)
    assert (found.execution_count, found.latest_created_execution.name) == (1, execution.name)
    status = run_v2.ExecutionReference.CompletionStatus.EXECUTION_SUCCEEDED
    assert found.latest_created_execution.completion_status is status


def spoiled(job, path, value):
    """The job with one field of it, by its path, as it cannot be."""
    message = job
    *messages, field = path.split(".")
    for name in messages:
        message = message[int(name)] if name.isdecimal() else getattr(message, name)
    setattr(message, field, value)
    return job


CONTAINER = "template.template.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("template.template.max_retries", 11, "maxRetries"),
        ("template.task_count", 10_001, "taskCount"),
        ("template.parallelism", -1, "parallelism"),
        ("template.template.timeout", {"seconds": 0}, "timeout"),
        ("template.template.service_account", "", "serviceAccount is required"),
        (f"{CONTAINER}.command", [], "needs a command"),
        (f"{CONTAINER}.volume_mounts", [{"name": "v", "mount_path": "/v"}], "volumeMounts"),
        ("template.template.volumes", [{"name": "v"}], "volumes"),
        ("template.template.containers", [{"image": "a"}, {"image": "b"}], "2 containers"),
        (
            f"{CONTAINER}.env",
            [{"name": "A", "value_source": {"secret_key_ref": {"secret": "s"}}}],
            "secret",
        ),
    ],
)
def test_a_job_that_could_not_run_as_it_says_is_refused_by_name(cloud, jobs, path, value, named):
    job = spoiled(job_of("pass", cloud.account()), path, value)
    with pytest.raises(google_errors.BadRequest, match=named):
        jobs.create_job(parent=PARENT, job=job, job_id=cloud.name("job"))


@pytest.mark.parametrize("job_id", ["Upper", "1digit", "ends-", "x" * 50, "a_b"])
def test_a_malformed_job_id_is_refused(cloud, jobs, job_id):
    with pytest.raises(google_errors.BadRequest):
        jobs.create_job(parent=PARENT, job=job_of("pass", cloud.account()), job_id=job_id)


def test_a_field_that_does_not_exist_is_refused(cloud):
    url = f"{cloud.addresses.run}/v2/{PARENT}/jobs"
    for parameters, body in (
        ({"jobId": "a"}, {"tmplate": {}}),
        ({"jobId": "a", "jobIdd": "b"}, {}),
        ({"jobId": "a"}, {"template": "text"}),
    ):
        answer = requests.post(url, params=parameters, json=body, timeout=10)
        assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_a_request_about_nothing_is_refused(cloud):
    jobs = Clients(cloud, "grpc").jobs
    for attempt in (
        lambda: jobs.create_job(job=job_of("pass", cloud.account()), job_id="a-job"),
        lambda: jobs.get_job(name=""),
        lambda: jobs.update_job(job=job_of("pass", cloud.account())),
    ):
        with pytest.raises(google_errors.BadRequest, match="is required"):
            attempt()


def test_jobs_survive_a_restart(own_cloud):
    cloud = own_cloud()
    job = Clients(cloud, "rest").jobs.get_job(name=make(cloud, "print('again')"))
    cloud.restart()
    for transport in ("rest", "grpc"):
        jobs = Clients(cloud, transport).jobs
        assert jobs.get_job(name=job.name).template == job.template
        execution = jobs.run_job(name=job.name).result(20)
        assert log_of(cloud, execution.name) == "again\n"
