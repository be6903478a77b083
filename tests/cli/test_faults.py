"""A running stack can be made to go wrong, and mends itself."""

import json
from datetime import datetime, timedelta

import pytest


@pytest.fixture
def fault(stack):
    """Called with the words of `sublet local fault add`; all are cleared after the test."""

    def add(*words):
        return json.loads(
            stack.sublet(
                "local", "fault", "add", *words, "--data-dir", stack.directory, "-o", "json"
            )
        )

    yield add
    stack.sublet("local", "fault", "clear", "--data-dir", stack.directory)


def faults_of(stack):
    listed = stack.sublet("local", "fault", "list", "--data-dir", stack.directory, "-o", "json")
    return json.loads(listed)["faults"]


def units_of(stack):
    status = stack.sublet("local", "status", "--data-dir", stack.directory, "-o", "json")
    return {unit["unit"]: unit for unit in json.loads(status)["units"]}


def test_a_trainer_that_is_killed_once_is_tried_again(stack, fault):
    tenant = stack.tenant()
    fault("kill-trainer")
    job = tenant.job_of(tenant.drop())
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert [one["numStruck"] for one in faults_of(stack)] == [1]
    assert tenant.ended_lease(job)["state"] == "REVOKED"


def test_a_function_that_is_killed_is_back_for_the_next_drop(stack, fault):
    tenant = stack.tenant()
    before = units_of(stack)["register-dataset"]["restarts"]
    fault("kill-function", "--on", "register-dataset")
    tenant.until(lambda: units_of(stack)["register-dataset"]["restarts"] > before)
    assert tenant.dataset_of(tenant.drop())["state"] == "READY"


def test_an_order_for_a_fault_that_there_is_not_says_which_there_are(stack):
    with pytest.raises(AssertionError, match="deliver-twice"):
        stack.sublet("local", "fault", "add", "gremlins", "--data-dir", stack.directory)


def test_advancing_the_clock_moves_every_part(stack, trained):
    """Of a stack that is warm: whoever keeps a token by the machine's clock is started anew."""
    tenant = stack.tenant()
    data_dir = ("--data-dir", stack.directory, "-o", "json")
    before = datetime.now().astimezone()
    now = json.loads(stack.sublet("local", "clock", "advance", "1h30m", *data_dir))["now"]
    ahead = before + timedelta(hours=1, minutes=29)
    assert datetime.fromisoformat(now) > ahead
    blob = tenant.drop()
    assert blob.time_created > ahead
    job = tenant.job_of(blob)
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert datetime.fromisoformat(job["createTime"]) > ahead
    assert tenant.ended_lease(job)["state"] == "REVOKED"
