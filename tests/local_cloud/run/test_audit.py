"""Who waits for the end of an execution is told of it as Eventarc would tell."""

import asyncio
import json
from datetime import timedelta

import pytest
from cloudevents.http import from_http
from local_cloud.run.running import PARENT, STUBBORN, Clients, log_of, make, wait_until
from running_cloud import PLATFORM

from sublet.clock import SystemClock
from sublet.local.cloud import AUDIT_TOPIC
from sublet.local.database import Database
from sublet.local.pubsub.names import parse_subscription, parse_topic
from sublet.local.pubsub.resources import Subscription, Topic
from sublet.local.run.executions import Executions
from sublet.local.run.jobs import RunState
from sublet.names import Email

JOB = f"{PARENT}/jobs/a-job"


@pytest.fixture
def told(own_cloud):
    """A cloud of one's own, its clients, and the events that somebody took."""
    cloud, events = own_cloud(), []
    cloud.do(lambda inside: inside.executions.subscribe(events.append))
    return cloud, Clients(cloud, "rest"), events


def test_the_end_of_an_execution_is_an_audit_event(told):
    cloud, clients, events = told
    job = make(cloud, "pass", env={"A": "b"})
    execution = clients.jobs.run_job(name=job).result(20)
    (event,) = events
    short, job_id = execution.name.rpartition("/")[2], job.rpartition("/")[2]
    headers, body = event.to_http()
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["ce-type"] == "google.cloud.audit.log.v1.written"
    assert headers["ce-servicename"] == "run.googleapis.com"
    assert headers["ce-methodname"] == "/Jobs.RunJob"
    assert headers["ce-resourcename"] == f"namespaces/platform-project/executions/{short}"
    assert headers["ce-source"] == (
        "//cloudaudit.googleapis.com/projects/platform-project/logs/system_event"
    )
    entry = json.loads(body)
    assert entry["logName"].endswith("cloudaudit.googleapis.com%2Fsystem_event")
    assert entry["resource"] == {
        "type": "cloud_run_job",
        "labels": {
            "project_id": "platform-project",
            "location": "local1",
            "job_name": job_id,
        },
    }
    payload = entry["protoPayload"]
    assert payload["methodName"] == "/Jobs.RunJob"
    assert "code" not in payload["status"]
    assert payload["response"]["metadata"]["name"] == short
    assert payload["response"]["status"]["succeededCount"] == 1
    (condition,) = payload["response"]["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Completed", "True")
    (container,) = payload["response"]["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "A", "value": "b"}]


def test_the_cloudevents_library_reads_the_event_that_is_delivered(told):
    cloud, clients, events = told
    clients.jobs.run_job(name=make(cloud, "pass")).result(20)
    headers, body = events[0].to_http()
    read = from_http(headers, body)
    assert read["type"] == "google.cloud.audit.log.v1.written"
    assert read["methodname"] == "/Jobs.RunJob"
    assert read["subject"] == f"run.googleapis.com/{events[0].resource_name}"
    assert read.data == events[0].data


def test_the_event_is_published_where_the_project_has_a_topic_for_it(own_cloud):
    """As a trigger of Eventarc makes one in the cloud; here whoever wants to hear makes it."""
    cloud = own_cloud()
    topic = parse_topic(f"projects/{PLATFORM}/topics/{AUDIT_TOPIC}")
    name = parse_subscription(f"projects/{PLATFORM}/subscriptions/heard")
    cloud.do(lambda inside: inside.pubsub.create_topic(Topic(name=topic)))
    cloud.do(lambda inside: inside.pubsub.create_subscription(Subscription(name=name, topic=topic)))
    clients = Clients(cloud, "rest")
    execution = clients.jobs.run_job(name=make(cloud, "pass")).result(20)
    (message,) = cloud.pull(name)
    read = from_http(dict(message.attributes), message.data)
    assert read["type"] == "google.cloud.audit.log.v1.written"
    short = execution.name.rpartition("/")[2]
    assert read.data["labels"]["run.googleapis.com/execution_name"] == short


def test_a_failed_and_a_cancelled_execution_say_their_codes(told):
    cloud, clients, events = told
    failing = clients.jobs.run_job(name=make(cloud, "raise SystemExit(4)"))
    wait_until(lambda: len(events) == 1)
    running = clients.jobs.run_job(name=make(cloud, STUBBORN))
    wait_until(lambda: "up" in log_of(cloud, running.metadata.name))
    clients.executions.cancel_execution(name=running.metadata.name).result(20)
    wait_until(lambda: len(events) == 2)
    statuses = [event.data["protoPayload"]["status"] for event in events]
    assert [status["code"] for status in statuses] == [10, 1]
    assert "exit code 4" in statuses[0]["message"]
    assert events[0].data["severity"] == "ERROR"
    assert failing.metadata.name.rpartition("/")[2] in events[0].resource_name


def test_an_execution_of_several_tasks_ends_once(told):
    cloud, clients, events = told
    clients.jobs.run_job(name=make(cloud, "pass", tasks=4)).result(20)
    assert len(events) == 1


def test_an_event_that_nobody_took_comes_again_after_a_restart(tmp_path):
    """As where the local cloud was killed while it told: nothing says that it was taken."""

    async def lives():
        database, seen = Database(tmp_path / "cloud.db"), []
        email = Email("somebody@platform-project.iam.gserviceaccount.com")
        state = RunState(database, SystemClock())

        def started_anew(take):
            executions = Executions(
                state, SystemClock(), logs=tmp_path, metadata_host_of=lambda _: "127.0.0.1:1"
            )
            executions.subscribe(take)
            executions.resume()
            return executions

        def refuse(event):
            seen.append(event.id)
            raise ConnectionError("nobody is there yet")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        template = {"containers": [{"command": ["true"]}], "serviceAccount": email}
        job = state.create_job(JOB, {"template": {"template": template}})
        executions = started_anew(refuse)
        execution = state.create_execution(job, state.new_execution(job, {}))
        executions.start(execution)
        await executions.wait(execution.name, 20)
        started_anew(lambda event: seen.append(event.id))
        started_anew(lambda event: seen.append("once more"))
        database.close()
        return seen

    first, second = asyncio.run(lives())
    assert first == second


def test_the_event_is_of_the_time_of_the_end(told):
    cloud, clients, events = told
    execution = clients.jobs.run_job(name=make(cloud, "pass")).result(20)
    (event,) = events
    assert abs(event.time - execution.completion_time) < timedelta(milliseconds=1)
