"""
An execution is a process for each task, with an identity and nothing else, retried and stopped as
told.
"""

import json
from pathlib import Path
from urllib.parse import urlparse

import pytest
from google.api_core import exceptions as google_errors
from google.cloud import run_v2
from local_cloud.run.running import SHOW, STUBBORN, Clients, log_of, make, wait_until

Condition = run_v2.Condition


def completed(execution) -> run_v2.Condition:
    return next(c for c in execution.conditions if c.type_ == "Completed")


def test_an_execution_runs_to_its_end_and_says_so(cloud, clients):
    operation = clients.jobs.run_job(name=make(cloud, "print('done')"))
    execution = operation.result(20)
    assert (execution.succeeded_count, execution.failed_count) == (1, 0)
    assert execution.create_time <= execution.start_time <= execution.completion_time
    assert completed(execution).state is Condition.State.CONDITION_SUCCEEDED
    assert log_of(cloud, execution.name) == "done\n"
    assert clients.executions.get_execution(name=operation.metadata.name) == execution


def test_the_log_is_where_the_execution_says(cloud, jobs):
    execution = jobs.run_job(name=make(cloud, "print('done')")).result(20)
    assert Path(urlparse(execution.log_uri).path).read_text() == "done\n"


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
    assert environment["CLOUD_RUN_JOB"] == job.rpartition("/")[2]
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


def overridden(jobs, job, container=None, **overrides):
    containers = (
        [run_v2.RunJobRequest.Overrides.ContainerOverride(**container)] if container else []
    )
    wanted = run_v2.RunJobRequest.Overrides(container_overrides=containers, **overrides)
    return jobs.run_job(run_v2.RunJobRequest(name=job, overrides=wanted))


def test_one_run_may_have_other_arguments_tasks_and_time(cloud, jobs):
    job = make(cloud, "import sys; print(sys.argv[1:])")
    execution = overridden(
        jobs, job, {"args": ["a", "b"]}, task_count=2, timeout={"seconds": 33}
    ).result(20)
    assert (execution.task_count, execution.succeeded_count) == (2, 2)
    assert execution.template.timeout.total_seconds() == 33
    assert log_of(cloud, execution.name) == "['a', 'b']\n"
    plain = jobs.run_job(name=job).result(20)
    assert (plain.task_count, log_of(cloud, plain.name)) == (1, "[]\n")


@pytest.mark.parametrize(
    ("container", "overrides"),
    [
        (None, {"task_count": 10_001}),
        (None, {"timeout": {"seconds": 168 * 3600 + 1}}),
        ({"name": "another"}, {}),
        ({"args": ["a"], "clear_args": True}, {}),
    ],
)
def test_an_override_that_cannot_be_is_refused_and_runs_nothing(
    cloud, clients, container, overrides
):
    job = make(cloud, "pass")
    with pytest.raises(google_errors.BadRequest):
        overridden(clients.jobs, job, container, **overrides)
    assert list(clients.executions.list_executions(parent=job)) == []


def test_a_failing_task_is_retried_with_a_new_attempt_and_then_failed(cloud, clients):
    job = make(
        cloud, "import os,sys; print(os.environ['CLOUD_RUN_TASK_ATTEMPT']); sys.exit(3)", retries=2
    )
    operation = clients.jobs.run_job(name=job)
    with pytest.raises(google_errors.Aborted, match="exit code 3"):
        operation.result(20)
    execution = clients.executions.get_execution(name=operation.metadata.name)
    assert (execution.failed_count, execution.retried_count) == (1, 1)
    assert completed(execution).state is Condition.State.CONDITION_FAILED
    assert completed(execution).execution_reason is Condition.ExecutionReason.NON_ZERO_EXIT_CODE
    assert execution.completion_time
    assert log_of(cloud, execution.name).split() == ["0", "1", "2"]


def test_a_task_that_succeeds_at_the_second_try_succeeds(cloud, jobs):
    code = "import os,sys; sys.exit(int(os.environ['CLOUD_RUN_TASK_ATTEMPT']) < 1)"
    execution = jobs.run_job(name=make(cloud, code, retries=3)).result(20)
    assert (execution.succeeded_count, execution.retried_count) == (1, 1)
    assert completed(execution).message == ""


def test_a_command_that_does_not_exist_fails(cloud, jobs):
    job = jobs.get_job(name=make(cloud, "pass"))
    job.template.template.containers[0].command = ["no-such-command-anywhere"]
    job.template.template.max_retries = 0
    jobs.update_job(job=job).result(10)
    with pytest.raises(google_errors.Aborted):
        jobs.run_job(name=job.name).result(20)


def test_a_task_past_its_time_is_told_to_stop(cloud, jobs):
    operation = jobs.run_job(name=make(cloud, STUBBORN, timeout_s=1))
    with pytest.raises(google_errors.Aborted, match="timeout"):
        operation.result(20)
    assert log_of(cloud, operation.metadata.name).split() == ["up", "term"]


def test_a_task_that_does_not_listen_is_killed_ten_seconds_later(cloud):
    """By one transport only: it is the same task, and ten seconds are ten seconds."""
    deaf = "import signal,time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    operation = Clients(cloud, "rest").jobs.run_job(name=make(cloud, deaf, timeout_s=1))
    with pytest.raises(google_errors.Aborted, match="timeout"):
        operation.result(30)
    execution = operation.metadata
    assert 11 <= (execution.completion_time - execution.start_time).total_seconds() < 20


def test_a_cancelled_execution_stops_and_is_cancelled(cloud, clients):
    operation = clients.jobs.run_job(name=make(cloud, STUBBORN, retries=3))
    wait_until(lambda: "up" in log_of(cloud, operation.metadata.name))
    cancelled = clients.executions.cancel_execution(name=operation.metadata.name).result(20)
    assert (cancelled.cancelled_count, cancelled.running_count) == (1, 0)
    assert completed(cancelled).execution_reason is Condition.ExecutionReason.CANCELLED
    assert cancelled.completion_time
    with pytest.raises(google_errors.Cancelled):
        operation.result(20)


def test_cancelling_what_is_over_changes_nothing(cloud, clients):
    execution = clients.jobs.run_job(name=make(cloud, "pass")).result(20)
    assert clients.executions.cancel_execution(name=execution.name).result(10) == execution


def test_executions_are_listed_newest_first_and_deleted(cloud, clients):
    job = make(cloud, "pass")
    names = [clients.jobs.run_job(name=job).result(20).name for _ in range(3)]
    pages = clients.executions.list_executions(
        run_v2.ListExecutionsRequest(parent=job, page_size=2)
    ).pages
    assert [[e.name for e in page.executions] for page in pages] == [
        [names[2], names[1]],
        [names[0]],
    ]
    everywhere = clients.executions.list_executions(parent=job.rpartition("/")[0] + "/-")
    assert set(names) <= {execution.name for execution in everywhere}
    clients.executions.delete_execution(name=names[1]).result(10)
    left = clients.executions.list_executions(parent=job)
    assert [e.name for e in left] == [names[2], names[0]]
    with pytest.raises(google_errors.NotFound):
        clients.executions.get_execution(name=names[1])


def test_deleting_an_execution_ends_its_process(cloud, clients):
    operation = clients.jobs.run_job(name=make(cloud, STUBBORN))
    wait_until(lambda: "up" in log_of(cloud, operation.metadata.name))
    clients.executions.delete_execution(name=operation.metadata.name).result(20)
    assert log_of(cloud, operation.metadata.name).split() == ["up", "term"]


def test_an_execution_is_not_cancelled_by_a_stale_etag(cloud, clients):
    execution = clients.jobs.run_job(name=make(cloud, "pass")).result(20)
    request = run_v2.DeleteExecutionRequest(name=execution.name, etag='"of another"')
    with pytest.raises(google_errors.Conflict):
        clients.executions.delete_execution(request)
    request.etag = execution.etag
    clients.executions.delete_execution(request).result(10)
