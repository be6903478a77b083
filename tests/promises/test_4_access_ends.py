"""
Promise 4: access ends. Whatever crashes, no credential works after a stated bound; the end is
probed.
"""

import json
import os
import signal
from datetime import datetime

import psutil
import pytest
import requests
from click.testing import CliRunner
from running_stack import TRAINING_JOB, rows

from sublet.cli.main import sublet


def test_the_last_token_is_tried_and_refused_within_seconds_of_the_end(stack, trained):
    tenant, job, lease = trained.tenant, trained.job, trained.lease
    assert lease["state"] == "REVOKED"
    assert lease["lastProbe"]["refused"] is True
    assert lease["lastProbe"]["answers"] == "read: 401, create: 401"
    assert seconds_between(job["completedTime"], lease["endTime"]) < 5
    iam = f"http://127.0.0.1:{stack.ports['iam']}/v1/projects/-/serviceAccounts"
    for email in tenant.get("")["dataServiceAccounts"]:
        assert requests.get(f"{iam}/{email}", timeout=10).json()["disabled"] is True


def seconds_between(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def trainer_of(stack, job) -> psutil.Process:
    """The process that trains a job, known by its lease."""
    for process in psutil.Process(stack.pid).children(recursive=True):
        try:
            if process.environ().get("SUBLET_LEASE") == job["lease"]:
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    pytest.fail("no process trains that job")


def long_job(tenant):
    """A job that is running and will be for a while, and its trainer."""
    blob = tenant.drop(rows(count=150, text="word " * 20))
    job = tenant.job_of(blob, "RUNNING")
    assert job["state"] == "JOB_STATE_RUNNING"
    return blob, job


SLOW_WATCH = {
    "prefix": "data/",
    "trainingTemplate": {
        "baseModel": "accounts/fireworks/models/tiny-random",
        "epochs": 1,
        "batchSize": 2048,
    },
}


LONG_WATCH = {
    "prefix": "data/",
    "trainingTemplate": {**SLOW_WATCH["trainingTemplate"], "epochs": 2},
}


def test_a_trainer_that_is_killed_is_tried_again_and_access_ends_all_the_same(stack):
    tenant = stack.tenant(watch=SLOW_WATCH)
    blob, job = long_job(tenant)
    os.kill(trainer_of(stack, job).pid, signal.SIGKILL)
    done = tenant.job_of(blob)
    assert done["state"] == "JOB_STATE_COMPLETED", done
    lease = tenant.ended_lease(done)
    assert (lease["state"], lease["epoch"]) == ("REVOKED", 3)


@pytest.fixture
def one_try(stack):
    """The training job without retries: what its last try would end with ends the execution."""
    jobs, _ = stack.run_clients()
    before, changed = (jobs.get_job(name=TRAINING_JOB) for _ in range(2))
    changed.template.template.max_retries = 0
    jobs.update_job(job=changed).result(10)
    yield
    before.etag = ""
    jobs.update_job(job=before).result(10)


def test_a_training_that_outlasts_its_execution_goes_on_in_another_under_one_lease(stack, one_try):
    """SIGTERM is what Cloud Run sends when a task's time is up."""
    tenant = stack.tenant(watch=LONG_WATCH)
    blob = tenant.drop(rows(count=300, text="word " * 20))
    tenant.job_of(blob, "RUNNING")

    def advanced():
        job = tenant.job_of(blob, "RUNNING")
        return job if job["jobProgress"]["percent"] or job["state"] != "JOB_STATE_RUNNING" else None

    job = tenant.until(advanced)
    os.kill(trainer_of(stack, job).pid, signal.SIGTERM)
    done = tenant.job_of(blob)
    assert done["state"] == "JOB_STATE_COMPLETED", done
    assert done["lease"] == job["lease"]
    _, executions = stack.run_clients()
    ours = [
        one
        for one in executions.list_executions(parent=TRAINING_JOB)
        if any(env.value == job["lease"] for env in one.template.containers[0].env)
    ]
    assert sorted(one.failed_count for one in ours) == [0, 1]
    folder = tenant.manifest(done)["adapter"]["folder"]
    metrics = tenant.bucket.blob(f"{folder}metrics.jsonl").download_as_text().splitlines()
    steps = [json.loads(line)["step"] for line in metrics]
    assert steps == list(range(1, len(steps) + 1))


def test_a_job_that_is_cancelled_loses_its_access(stack):
    tenant = stack.tenant(watch=SLOW_WATCH)
    blob, job = long_job(tenant)
    assert tenant.call("POST", f"{job['name'].split('/', 2)[2]}:cancel").ok
    assert tenant.job_of(blob)["state"] == "JOB_STATE_CANCELLED"
    assert tenant.ended_lease(job)["state"] == "REVOKED"
    tenant.until(lambda: not is_running(stack, job))


def is_running(stack, job) -> bool:
    try:
        trainer_of(stack, job)
    except pytest.fail.Exception:
        return False
    return True


def test_a_stack_that_is_killed_in_the_middle_of_a_job_ends_it_well_when_it_starts_again(own_stack):
    stack = own_stack()
    tenant = stack.tenant(watch=SLOW_WATCH)
    blob, _ = long_job(tenant)
    stack.kill()
    stack.up()
    done = tenant.job_of(blob)
    assert done["state"] == "JOB_STATE_COMPLETED", done
    assert tenant.ended_lease(done)["state"] == "REVOKED"
    assert all(lease["state"] == "REVOKED" for lease in tenant.leases)


def test_how_long_revocation_takes_is_measured_on_the_users_own_cloud(stack):
    tenant = stack.tenant(watch=None)
    options = ("--data-dir", str(stack.directory), "-o", "json")
    made = json.loads(stack.sublet("local", "create-service-account", "scratch-account", *options))
    arguments = ["verify", "revocation", "--local", *options, "--bucket", tenant.bucket_name]
    arguments += ["--service-account", made["email"], "--lead", "2s", "--every", "0.1s"]
    measured = CliRunner().invoke(sublet, arguments)
    assert measured.exit_code == 0, measured.output
    took = json.loads(measured.output)
    assert len(took) == 6 and all(value.endswith(" s") for value in took.values()), took


def test_an_account_that_is_always_on_is_never_dark(stack):
    """It starts at once, and the age of its tokens is the bound that its receipts state."""
    tenant = stack.tenant("--always-on", watch={"prefix": "data/"})
    tenant.dataset_of(tenant.drop())
    iam = f"http://127.0.0.1:{stack.ports['iam']}/v1/projects/-/serviceAccounts"
    for email in tenant.get("")["dataServiceAccounts"]:
        account = requests.get(f"{iam}/{email}", timeout=10).json()
        assert account.get("disabled", False) is False
    (lease,) = tenant.leases
    ended = tenant.ended_lease({"lease": lease["name"]})
    assert ended["state"] == "REVOKED" and ended["lastProbe"]["answers"] == "read: 401"
    assert ended["endTime"] > ended["revokeTime"]
