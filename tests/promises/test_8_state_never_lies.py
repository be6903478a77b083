"""
Promise 8: state never lies. A job is RUNNING only while its trainer is heard of, and says how far
it is.
"""

import json
import signal

import psutil
import pytest
from google.cloud.run_v2 import ExecutionsClient
from running_stack import TRAINING_JOB, Tenant, rows

SLOW_WATCH = {
    "prefix": "data/",
    "trainingTemplate": {
        "baseModel": "accounts/fireworks/models/tiny-random",
        "epochs": 50,
        "batchSize": 2048,
    },
}


@pytest.fixture
def tenant(stack) -> Tenant:
    return stack.tenant(watch=SLOW_WATCH)


def trainers_of(stack, job) -> list[psutil.Process]:
    """The processes that train a job, known by its lease."""
    found = []
    for process in psutil.Process(stack.pid).children(recursive=True):
        try:
            if process.environ().get("SUBLET_LEASE") == job["lease"]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def execution_of(executions: ExecutionsClient, job):
    return executions.get_execution(name=f"{TRAINING_JOB}/executions/{job['execution']}")


def test_a_running_job_says_where_it_is_and_one_that_hangs_is_not_running(stack, tenant):
    blob = tenant.drop(rows(count=300, text="word " * 20))
    tenant.job_of(blob, "RUNNING")
    job = tenant.until(lambda: has_progress(tenant.job_of(blob, "RUNNING")))
    assert job["state"] == "JOB_STATE_RUNNING"
    assert job["heartbeatAgeSeconds"] < 3
    assert job["step"] > 0 and job["loss"] > 0 and "epoch" in job["jobProgress"]
    hang(stack, job)
    stack.sublet("local", "clock", "advance", "11m", "--data-dir", stack.directory)
    ended = tenant.job_of(blob)
    assert ended["state"] == "JOB_STATE_FAILED"
    assert "its trainer has been silent for" in ended["status"]["message"]
    assert tenant.ended_lease(ended)["state"] == "REVOKED"
    _, executions = stack.run_clients()
    stopped = tenant.until(lambda: is_over(execution_of(executions, ended)))
    assert stopped.cancelled_count == 1
    tenant.until(lambda: not trainers_of(stack, ended))


def has_progress(job):
    return job if job.get("step") else None


def hang(stack, job) -> None:
    """It is there, and does nothing more: no crash that anybody could notice."""
    trainers = trainers_of(stack, job)
    assert trainers
    for process in trainers:
        process.send_signal(signal.SIGSTOP)


def is_over(execution):
    return execution if execution.completion_time else None


def test_a_dry_run_of_the_sweep_says_what_it_would_mend_and_why(stack):
    data_dir = ("--data-dir", stack.directory, "-o", "json")
    report = json.loads(stack.sublet("local", "sweep", "--dry-run", *data_dir))
    assert report["dryRun"] is True and report["failures"] == []
    assert len(report["planned"]) == sum(report["repairs"].values())
    swept = json.loads(stack.sublet("local", "sweep", *data_dir))
    assert swept["dryRun"] is False and swept["failures"] == []
