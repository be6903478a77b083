"""The tasks of an execution: each knows its place, and so many run at once as the job says."""

import json

import pytest
from google.api_core import exceptions as google_errors
from local_cloud.run.running import SHOW, log_of, make, wait_until

HOLDS_ITS_PLACE = """
import os, time
place, index = os.environ["PLACE"], os.environ["CLOUD_RUN_TASK_INDEX"]
os.mkdir(f"{place}/{index}")
print(len(os.listdir(place)), flush=True)
while not os.path.exists(f"{place}.go"):
    time.sleep(0.01)
os.rmdir(f"{place}/{index}")
"""


def test_every_task_knows_its_index_and_how_many_there_are(cloud, jobs):
    execution = jobs.run_job(name=make(cloud, SHOW, tasks=3)).result(20)
    seen = [json.loads(log_of(cloud, execution.name, index)) for index in range(3)]
    places = [(e["CLOUD_RUN_TASK_INDEX"], e["CLOUD_RUN_TASK_COUNT"]) for e in seen]
    assert places == [("0", "3"), ("1", "3"), ("2", "3")]
    assert (execution.task_count, execution.succeeded_count) == (3, 3)


def test_no_more_tasks_run_at_once_than_the_job_says(cloud, clients, tmp_path):
    place = tmp_path / clients.transport
    place.mkdir()
    job = make(cloud, HOLDS_ITS_PLACE, tasks=5, parallelism=2, env={"PLACE": str(place)})
    operation = clients.jobs.run_job(name=job)
    name = operation.metadata.name
    wait_until(lambda: len(list(place.iterdir())) == 2)
    waiting = clients.executions.get_execution(name=name)
    assert (waiting.parallelism, waiting.running_count, waiting.task_count) == (2, 2, 5)
    unstarted = [t for t in clients.tasks.list_tasks(parent=name) if not t.start_time]
    assert len(unstarted) == 3
    place.with_suffix(".go").touch()
    assert operation.result(20).succeeded_count == 5
    assert max(int(log_of(cloud, name, index)) for index in range(5)) == 2


def test_one_failed_task_fails_the_execution_and_the_others_run_to_their_end(cloud, clients):
    code = "import os,sys; sys.exit(7 if os.environ['CLOUD_RUN_TASK_INDEX'] == '1' else 0)"
    operation = clients.jobs.run_job(name=make(cloud, code, tasks=3))
    with pytest.raises(google_errors.Aborted, match="exit code 7"):
        operation.result(20)
    execution = clients.executions.get_execution(name=operation.metadata.name)
    assert (execution.succeeded_count, execution.failed_count) == (2, 1)
    tasks = list(clients.tasks.list_tasks(parent=execution.name))
    assert [task.index for task in tasks] == [0, 1, 2]
    assert [task.last_attempt_result.exit_code for task in tasks] == [0, 7, 0]
    assert [task.last_attempt_result.status.code for task in tasks] == [0, 10, 0]


def test_a_task_is_found_by_its_name_and_says_how_it_ended(cloud, clients):
    code = "import os,signal; os.kill(os.getpid(), signal.SIGKILL)"
    operation = clients.jobs.run_job(name=make(cloud, code, retries=1))
    with pytest.raises(google_errors.Aborted, match="signal 9"):
        operation.result(20)
    (listed,) = clients.tasks.list_tasks(parent=operation.metadata.name)
    task = clients.tasks.get_task(name=listed.name)
    assert task == listed
    assert (task.index, task.retried, task.last_attempt_result.term_signal) == (0, 1, 9)
    assert task.execution == operation.metadata.name
    assert task.log_uri.endswith("-task0.log")
    assert task.completion_time
    with pytest.raises(google_errors.NotFound):
        clients.tasks.get_task(name=f"{operation.metadata.name}/tasks/no-such-task")


def test_cancelling_ends_the_tasks_that_wait_for_their_turn_too(cloud, clients, tmp_path):
    place = tmp_path / clients.transport
    place.mkdir()
    job = make(cloud, HOLDS_ITS_PLACE, tasks=4, parallelism=1, env={"PLACE": str(place)})
    name = clients.jobs.run_job(name=job).metadata.name
    wait_until(lambda: list(place.iterdir()))
    cancelled = clients.executions.cancel_execution(name=name).result(20)
    assert (cancelled.cancelled_count, cancelled.running_count) == (4, 0)
