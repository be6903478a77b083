"""What runs when the local cloud stops, or is killed, and what becomes of it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
from local_cloud.run.running import HANGS_AT_FIRST, STUBBORN, Clients, log_of, make, wait_until
from processes import lives

KILLED_CLOUD = Path(__file__).with_name("killed_cloud.py")
WRITES_ITS_ID = (
    "import os,sys,time; print(os.getpid(), file=open(sys.argv[1], 'w')); time.sleep(60)"
)


def test_what_ran_when_the_cloud_stopped_is_tried_again_when_it_starts(own_cloud):
    cloud = own_cloud()
    operation = Clients(cloud, "rest").jobs.run_job(name=make(cloud, HANGS_AT_FIRST, retries=3))
    wait_until(lambda: log_of(cloud, operation.metadata.name) == "0\n")
    cloud.restart()
    executions = Clients(cloud, "grpc").executions
    wait_until(lambda: executions.get_execution(name=operation.metadata.name).succeeded_count == 1)
    assert log_of(cloud, operation.metadata.name).split() == ["0", "1"]


def test_what_had_no_more_tries_when_the_cloud_stopped_has_failed(own_cloud):
    cloud = own_cloud()
    operation = Clients(cloud, "rest").jobs.run_job(name=make(cloud, STUBBORN))
    wait_until(lambda: "up" in log_of(cloud, operation.metadata.name))
    cloud.restart()
    execution = Clients(cloud, "rest").executions.get_execution(name=operation.metadata.name)
    assert execution.failed_count == 1
    assert execution.completion_time
    assert "the instance was lost" in [condition.message for condition in execution.conditions]


def test_tasks_that_waited_for_their_turn_run_after_a_restart(own_cloud):
    cloud = own_cloud()
    job = make(cloud, HANGS_AT_FIRST, retries=1, tasks=3, parallelism=1)
    operation = Clients(cloud, "rest").jobs.run_job(name=job)
    wait_until(lambda: log_of(cloud, operation.metadata.name) == "0\n")
    cloud.restart()
    clients = Clients(cloud, "rest")
    wait_until(lambda: log_of(cloud, operation.metadata.name, task=1) == "0\n")
    tasks = list(clients.tasks.list_tasks(parent=operation.metadata.name))
    assert [task.retried for task in tasks] == [1, 0, 0]
    assert [task.last_attempt_result.exit_code for task in tasks] == [0, 0, 0]
    clients.executions.cancel_execution(name=operation.metadata.name).result(20)


def test_a_cancellation_goes_on_after_a_restart(own_cloud):
    """As where the local cloud was killed between the order and the end of the processes."""
    cloud = own_cloud()
    job = make(cloud, "pass", tasks=2)

    def ordered(inside):
        execution = inside.run_state.new_execution(inside.run_state.job(job), {})
        inside.run_state.create_execution(inside.run_state.job(job), execution)
        lost = replace(execution.tasks[0], pid=2**22 + 1, started_at=cloud.clock.now())
        execution = replace(execution.with_task(0, lost), is_cancelled=True)
        inside.run_state.save(execution)
        return execution.name

    name = cloud.do(ordered)
    cloud.restart()
    execution = Clients(cloud, "rest").executions.get_execution(name=name)
    assert (execution.cancelled_count, execution.running_count) == (2, 0)
    assert execution.completion_time


def test_a_killed_cloud_leaves_no_task_behind(tmp_path):
    written = tmp_path / "pid"
    command = [sys.executable, "-c", WRITES_ITS_ID, str(written)]
    cloud = subprocess.Popen([sys.executable, str(KILLED_CLOUD), str(tmp_path), *command])
    try:
        wait_until(lambda: written.read_text().strip())
        task = psutil.Process(int(written.read_text()))
        assert lives(task)
    finally:
        cloud.kill()
        cloud.wait(10)
    wait_until(lambda: not lives(task))
