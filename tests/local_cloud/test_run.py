"""
Cloud Run jobs: an execution is a process with an identity and nothing else, retried and stopped as
told.
"""

import json
import sys
import time

import pytest
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.oauth2.credentials import Credentials

PARENT = "projects/platform-project/locations/local1"
SHOW = "import json,os; print(json.dumps(dict(os.environ)))"


@pytest.fixture
def jobs(cloud):
    return client(cloud, run_v2.JobsClient)


def client(cloud, kind, token=None):
    return kind(
        transport="rest",
        credentials=Credentials(token) if token else AnonymousCredentials(),
        client_options={"api_endpoint": cloud.addresses.run},
    )


def make(cloud, code: str, *, retries: int = 0, timeout_s: int = 60, env=None) -> str:
    """A job whose task runs a piece of Python."""
    email, name = cloud.account(), cloud.name("job")
    cloud.metadata_host(email)
    container = run_v2.Container(
        image="python",
        command=[sys.executable, "-c", code],
        env=[run_v2.EnvVar(name=k, value=v) for k, v in (env or {}).items()],
    )
    template = run_v2.TaskTemplate(
        containers=[container],
        service_account=email,
        max_retries=retries,
        timeout={"seconds": timeout_s},
    )
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=template))
    client(cloud, run_v2.JobsClient).create_job(parent=PARENT, job=job, job_id=name).result(10)
    return f"{PARENT}/jobs/{name}"


def log_of(cloud, execution: str) -> str:
    name = f"{execution.rpartition('/')[2]}-task0.log"
    return (cloud._directory / "logs" / "executions" / name).read_text()


def test_an_execution_runs_to_its_end_and_says_so(cloud, jobs):
    execution = jobs.run_job(name=make(cloud, "print('done')")).result(20)
    assert (execution.succeeded_count, execution.failed_count) == (1, 0)
    assert execution.completion_time
    assert log_of(cloud, execution.name) == "done\n"


def test_a_task_has_its_own_environment_and_nothing_of_ours(cloud, jobs, monkeypatch):
    monkeypatch.setenv("A_SECRET_OF_THE_CALLER", "x")
    job = make(cloud, SHOW, env={"A": "job", "B": "job"})
    override = run_v2.RunJobRequest.Overrides.ContainerOverride(
        env=[run_v2.EnvVar(name="B", value="run")]
    )
    overrides = run_v2.RunJobRequest.Overrides(container_overrides=[override])
    execution = jobs.run_job(run_v2.RunJobRequest(name=job, overrides=overrides)).result(20)
    environment = json.loads(log_of(cloud, execution.name))
    assert (environment["A"], environment["B"]) == ("job", "run")
    assert environment["CLOUD_RUN_EXECUTION"] == execution.name.rpartition("/")[2]
    assert environment["CLOUD_RUN_TASK_ATTEMPT"] == "0"
    assert "A_SECRET_OF_THE_CALLER" not in environment
    assert set(environment) <= {
        "A",
        "B",
        "CLOUD_RUN_EXECUTION",
        "CLOUD_RUN_JOB",
        "CLOUD_RUN_TASK_ATTEMPT",
        "CLOUD_RUN_TASK_COUNT",
        "CLOUD_RUN_TASK_INDEX",
        "GCE_METADATA_HOST",
        "GCE_METADATA_IP",
        "HOME",
        "LANG",
        "LC_CTYPE",
        "PATH",
        "TMPDIR",
    }


def test_a_task_is_the_service_account_of_its_job(cloud, jobs):
    code = (
        "import os,urllib.request as u;"
        "r=u.Request('http://'+os.environ['GCE_METADATA_HOST']"
        "+'/computeMetadata/v1/instance/service-accounts/default/email',headers={'Metadata-Flavor':'Google'});"
        "print(u.urlopen(r).read().decode())"
    )
    job = make(cloud, code)
    execution = jobs.run_job(name=job).result(20)
    assert (
        log_of(cloud, execution.name).strip()
        == jobs.get_job(name=job).template.template.service_account
    )


def test_a_failing_task_is_retried_with_a_new_attempt_and_then_failed(cloud, jobs):
    job = make(
        cloud, "import os,sys; print(os.environ['CLOUD_RUN_TASK_ATTEMPT']); sys.exit(3)", retries=2
    )
    operation = jobs.run_job(name=job)
    with pytest.raises(google_errors.Aborted, match="exit code 3"):
        operation.result(20)
    execution = client(cloud, run_v2.ExecutionsClient).get_execution(name=operation.metadata.name)
    assert (execution.failed_count, execution.retried_count) == (1, 2)
    assert log_of(cloud, execution.name).split() == ["0", "1", "2"]


def test_a_task_that_succeeds_at_the_second_try_succeeds(cloud, jobs):
    code = "import os,sys; sys.exit(int(os.environ['CLOUD_RUN_TASK_ATTEMPT']) < 1)"
    assert jobs.run_job(name=make(cloud, code, retries=3)).result(20).succeeded_count == 1


STUBBORN = """
import signal, sys, time
def stop(*_):
    print("term", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""
HANGS_AT_FIRST = """
import os, time
attempt = os.environ["CLOUD_RUN_TASK_ATTEMPT"]
print(attempt, flush=True)
time.sleep(60 if attempt == "0" else 0)
"""


def test_a_task_past_its_time_is_told_to_stop(cloud, jobs):
    operation = jobs.run_job(name=make(cloud, STUBBORN, timeout_s=1))
    with pytest.raises(google_errors.Aborted, match="timeout"):
        operation.result(20)
    assert log_of(cloud, operation.metadata.name).split() == ["up", "term"]


def test_a_cancelled_execution_stops_and_is_cancelled(cloud, jobs):
    operation = jobs.run_job(name=make(cloud, STUBBORN, retries=3))
    wait_until(lambda: "up" in log_of(cloud, operation.metadata.name))
    executions = client(cloud, run_v2.ExecutionsClient)
    executions.cancel_execution(name=operation.metadata.name)
    with pytest.raises(google_errors.Cancelled):
        operation.result(20)
    assert executions.get_execution(name=operation.metadata.name).cancelled_count == 1


def wait_until(condition, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_what_ran_when_the_cloud_stopped_is_tried_again_when_it_starts(own_cloud):
    cloud = own_cloud()
    job = make(cloud, HANGS_AT_FIRST, retries=3)
    email = client(cloud, run_v2.JobsClient).get_job(name=job).template.template.service_account
    operation = client(cloud, run_v2.JobsClient).run_job(name=job)
    wait_until(lambda: log_of(cloud, operation.metadata.name) == "0\n")
    cloud.stop()
    cloud.start(email)
    executions = client(cloud, run_v2.ExecutionsClient)
    wait_until(lambda: executions.get_execution(name=operation.metadata.name).succeeded_count == 1)
    assert log_of(cloud, operation.metadata.name).split() == ["0", "1"]


def test_running_a_job_needs_the_right_to_it_and_overrides_another(cloud):
    job, caller = make(cloud, "pass"), cloud.account()
    cloud.allow(job, "roles/run.jobsExecutor", caller)
    jobs = client(cloud, run_v2.JobsClient, cloud.token(caller))
    jobs.run_job(name=job)
    overrides = run_v2.RunJobRequest.Overrides(task_count=2)
    with pytest.raises(google_errors.Forbidden, match="runWithOverrides"):
        jobs.run_job(run_v2.RunJobRequest(name=job, overrides=overrides))
    with pytest.raises(google_errors.Forbidden, match=r"run\.jobs\.delete"):
        jobs.delete_job(name=job)


def test_making_a_job_needs_the_right_to_act_as_its_identity(cloud):
    target, caller = cloud.account(), cloud.account()
    cloud.do(
        lambda inside: inside.iam.create_role(
            "projects/platform-project/roles/jobMaker", frozenset({"run.jobs.create"})
        )
    )
    cloud.allow("projects/platform-project", "projects/platform-project/roles/jobMaker", caller)
    container = run_v2.Container(image="python", command=["true"])
    template = run_v2.TaskTemplate(containers=[container], service_account=target)
    job = run_v2.Job(template=run_v2.ExecutionTemplate(template=template))
    with pytest.raises(google_errors.Forbidden, match="actAs"):
        client(cloud, run_v2.JobsClient, cloud.token(caller)).create_job(
            parent=PARENT, job=job, job_id="mine"
        )


def test_jobs_are_found_listed_and_deleted(cloud, jobs):
    job = make(cloud, "pass")
    assert job in [found.name for found in jobs.list_jobs(parent=PARENT)]
    with pytest.raises(google_errors.Conflict):
        jobs.create_job(parent=PARENT, job=jobs.get_job(name=job), job_id=job.rpartition("/")[2])
    jobs.delete_job(name=job).result(10)
    with pytest.raises(google_errors.NotFound):
        jobs.get_job(name=job)
