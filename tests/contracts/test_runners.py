"""
One promise, three runners: a container for a lease, in memory, on Cloud Run and on Vertex AI.
"""

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import vertex_wire
from contracts.test_cloud_ports import AsToken
from local_cloud.run.running import make, wait_until

from sublet.errors import AccessDenied, InvalidRequest, TryAgain
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.engine_runner import EngineRunner
from sublet.gcp.runner import CloudRunRunner
from sublet.gcp.vertex_runner import VertexRunner
from sublet.machines import EVERYTHING, Machine, Offer
from sublet.memory.clock import MemoryClock
from sublet.memory.messages import MemoryRunner
from sublet.names import AccountName, JobName, LeaseName
from sublet.ports import LIVING_EXECUTIONS, ExecutionState

ACME = AccountName.of("acme")
JOB = JobName.of(ACME, "j")
TRAINER = "sublet-trainer@platform-project.iam.gserviceaccount.com"
TEMPLATE = """{
  "displayName": "sublet-trainer",
  "jobSpec": {
    "workerPoolSpecs": [{
      "containerSpec": {
        "imageUri": "europe-west4-docker.pkg.dev/p/sublet/sublet-trainer@sha256:00",
        "env": [{"name": "SUBLET_BROKER_URL", "value": "https://lease-broker.example"}]
      }
    }],
    "scheduling": {"timeout": "43200s", "restartJobOnWorkerRestart": true, "strategy": "SPOT"},
    "serviceAccount": "sublet-trainer@platform-project.iam.gserviceaccount.com"
  }
}"""
H100 = Machine(accelerator="NVIDIA_H100_80GB", count=8)
numbers = count(1)


def a_lease() -> LeaseName:
    return LeaseName.of(ACME, f"ls-{next(numbers)}")


class InMemory:
    def __init__(self) -> None:
        self.clock = MemoryClock()
        self.runner = MemoryRunner(self.clock)

    def start_by_hand(self) -> str:
        return self.runner.start(JOB, None)

    def settle(self) -> None:
        """There is nothing that takes its time."""


class OnCloudRun:
    def __init__(self, cloud) -> None:
        self.clock = cloud.clock
        self._cloud = cloud
        endpoints = Endpoints(run=cloud.addresses.run)
        email = cloud.account()
        self._job = make(cloud, "import time; time.sleep(60)")
        role = f"projects/platform-project/roles/{cloud.name('runner').replace('-', '_')}"
        permissions = frozenset(
            {f"run.executions.{verb}" for verb in ("cancel", "get", "list")}
            | {"run.jobs.run", "run.jobs.runWithOverrides"}
        )
        cloud.do(lambda inside: inside.iam.create_role(role, permissions))
        cloud.allow(self._job, role, email)
        self.runner = CloudRunRunner(self._job, AsToken(endpoints, cloud.token(email)), endpoints)

    def start_by_hand(self) -> str:
        from google.cloud import run_v2
        from local_cloud.run.running import client

        operation = client(self._cloud, run_v2.JobsClient).run_job(name=self._job)
        return operation.metadata.name.rpartition("/")[2]

    def settle(self) -> None:
        """What was cancelled gets there by itself."""


class OnVertexAi:
    def __init__(self, wire: vertex_wire.VertexWire) -> None:
        self.wire = wire
        wire.may_act_as = frozenset({TRAINER})
        endpoints = Endpoints(vertex_ai=wire.url)
        identity = AsToken(endpoints, wire.token)
        self.runner = VertexRunner(vertex_wire.PARENT, TEMPLATE, EVERYTHING, identity, endpoints)

    @property
    def clock(self):
        return self

    def now(self) -> datetime:
        return datetime.now(UTC)

    def start_by_hand(self) -> str:
        """With the runner's own rights and without its labels or its environment."""
        self.runner.start(JOB, a_lease(), H100)
        number, job = list(self.wire.jobs.items())[-1]
        del job["labels"]
        job["jobSpec"]["workerPoolSpecs"][0]["containerSpec"]["env"] = []
        return f"vertex-job-{number}"

    def settle(self) -> None:
        """Cancelling is asked for, and takes Vertex AI a while."""
        for job in self.wire.jobs.values():
            if job["state"] == "JOB_STATE_CANCELLING":
                job["state"] = "JOB_STATE_CANCELLED"


@pytest.fixture
def wire():
    with vertex_wire.served() as wire:
        yield wire


@pytest.fixture
def vertex(wire) -> OnVertexAi:
    return OnVertexAi(wire)


@pytest.fixture(params=["memory", "cloud run", "vertex ai"])
def place(request):
    if request.param == "memory":
        return InMemory()
    if request.param == "vertex ai":
        return request.getfixturevalue("vertex")
    return OnCloudRun(request.getfixturevalue("cloud"))


# --- every runner ---------------------------------------------------------------------------------


def test_what_runs_is_listed_with_its_lease_until_it_is_cancelled(place):
    lease = a_lease()
    name = place.runner.start(JOB, lease)
    (listed,) = place.runner.running()
    assert (listed.name, listed.lease) == (name, lease)
    assert listed.state in LIVING_EXECUTIONS
    assert abs(listed.started_at - place.clock.now()) < timedelta(seconds=20)
    place.runner.cancel(name)
    place.settle()
    wait_until(lambda: place.runner.look_up(name).state is ExecutionState.CANCELLED)
    assert place.runner.running() == []


def test_a_repeated_start_finds_the_first_and_another_lease_does_not(place):
    """
    The function that started it died before it wrote that down, and is asked again. What has ended,
    however it did, is not found: the job goes on in another execution, under the same lease.
    """
    lease = a_lease()
    first, other = place.runner.start(JOB, lease), place.runner.start(JOB, a_lease())
    assert place.runner.start(JOB, lease) == first != other
    place.runner.cancel(first)
    place.settle()
    wait_until(lambda: place.runner.look_up(first).state is ExecutionState.CANCELLED)
    again = place.runner.start(JOB, lease)
    assert again not in (first, other)
    assert {one.name for one in place.runner.running()} == {other, again}
    for name in (other, again):
        place.runner.cancel(name)


def test_what_somebody_else_started_is_listed_without_a_lease_and_can_be_cancelled(place):
    name = place.start_by_hand()
    assert [(e.name, e.lease) for e in place.runner.running()] == [(name, None)]
    place.runner.cancel(name)
    place.settle()
    wait_until(lambda: place.runner.look_up(name).state is ExecutionState.CANCELLED)


def test_cancelling_what_has_ended_or_never_was_is_no_error(place):
    name = place.runner.start(JOB, a_lease())
    for _ in range(2):
        place.runner.cancel(name)
        place.settle()
    for unknown in ("sublet-trainer-none", "vertex-none", "vertex-job-1"):
        place.runner.cancel(unknown)
        assert place.runner.look_up(unknown).state is ExecutionState.UNKNOWN


# --- Vertex AI ------------------------------------------------------------------------------------


def started(vertex: OnVertexAi) -> dict:
    (job,) = vertex.wire.jobs.values()
    return job


def told(pool: dict) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pool["containerSpec"]["env"]}


def test_a_custom_job_is_the_template_with_the_machines_and_the_lease(vertex):
    lease = a_lease()
    name = vertex.runner.start(JOB, lease, H100)
    job = started(vertex)
    (pool,) = job["jobSpec"]["workerPoolSpecs"]
    assert pool["machineSpec"] == {
        "machineType": "a3-highgpu-8g",
        "acceleratorType": "NVIDIA_H100_80GB",
        "acceleratorCount": 8,
    }
    assert told(pool) == {
        "SUBLET_BROKER_URL": "https://lease-broker.example",
        "SUBLET_LEASE": lease,
        "SUBLET_JOB": JOB,
        "CLOUD_RUN_EXECUTION": name,
    }
    assert job["labels"] == {"sublet_lease": lease.id, "sublet_execution": name}
    assert job["jobSpec"]["serviceAccount"] == TRAINER
    assert job["jobSpec"]["scheduling"]["strategy"] == "SPOT"


def test_many_accelerators_are_a_primary_and_its_workers(vertex):
    """Vertex AI wants one replica in the first pool; the container is told who it is by it."""
    vertex.runner.start(JOB, a_lease(), Machine(accelerator="NVIDIA_H100_80GB", count=32))
    primary, workers = started(vertex)["jobSpec"]["workerPoolSpecs"]
    assert (primary["replicaCount"], workers["replicaCount"]) == ("1", "3")
    assert primary["containerSpec"] == workers["containerSpec"]
    assert primary["machineSpec"] == workers["machineSpec"]


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("QUEUED", ExecutionState.WAITING),
        ("PENDING", ExecutionState.WAITING),
        ("RUNNING", ExecutionState.RUNNING),
        ("CANCELLING", ExecutionState.RUNNING),
        ("PAUSED", ExecutionState.WAITING),
        ("UPDATING", ExecutionState.RUNNING),
        ("SUCCEEDED", ExecutionState.SUCCEEDED),
        ("PARTIALLY_SUCCEEDED", ExecutionState.FAILED),
        ("FAILED", ExecutionState.FAILED),
        ("EXPIRED", ExecutionState.FAILED),
        ("CANCELLED", ExecutionState.CANCELLED),
        ("OF_NEXT_YEAR", ExecutionState.UNKNOWN),
    ],
)
def test_every_state_of_a_custom_job_is_known(vertex, state, wanted):
    name = vertex.runner.start(JOB, a_lease())
    vertex.wire.move(state, message="no machines of that type are free")
    found = vertex.runner.look_up(name)
    assert (found.state, found.message) == (wanted, "no machines of that type are free")
    listed = [one.name for one in vertex.runner.running()]
    assert listed == ([name] if wanted in LIVING_EXECUTIONS else [])


def test_two_who_start_at_a_moment_start_two_that_can_be_told_apart(vertex):
    """The race that is left: one of the two claims the lease, and the sweep ends the other."""
    lease, vertex.wire.is_seen_late = a_lease(), True
    names = {vertex.runner.start(JOB, lease) for _ in range(2)}
    vertex.wire.is_seen_late = False
    assert len(names) == 2
    assert {(e.name, e.lease) for e in vertex.runner.running()} == {(n, lease) for n in names}
    assert vertex.runner.start(JOB, lease) in names
    first, second = sorted(names)
    vertex.runner.cancel(second)
    assert vertex.runner.look_up(first).state is ExecutionState.WAITING
    assert vertex.runner.look_up(second).state is ExecutionState.RUNNING  # being cancelled


def test_a_start_whose_answer_was_lost_is_found_by_the_next_one(vertex):
    lease, vertex.wire.loses_answers = a_lease(), True
    with pytest.raises(TryAgain):
        vertex.runner.start(JOB, lease)
    vertex.wire.loses_answers = False
    name = vertex.runner.start(JOB, lease)
    assert [one.name for one in vertex.runner.running()] == [name]


def test_an_execution_is_found_on_whichever_page_it_is(vertex):
    vertex.wire.pages_of = 2
    names = [vertex.runner.start(JOB, a_lease()) for _ in range(5)]
    assert {one.name for one in vertex.runner.running()} == {*names}


def test_a_lease_of_another_account_with_the_same_id_is_another(vertex):
    name = vertex.runner.start(JOB, LeaseName.of(ACME, "ls-same"))
    other = LeaseName.of(AccountName.of("globex"), "ls-same")
    assert vertex.runner.start(JOB, other) != name


def test_the_custom_jobs_of_others_in_the_project_are_left_alone(vertex):
    vertex.runner.start(JOB, a_lease())
    started(vertex)["jobSpec"]["serviceAccount"] = "somebody@platform-project.example"
    assert vertex.runner.running() == []


def test_a_job_that_ends_while_it_is_cancelled_is_no_error(vertex):
    name = vertex.runner.start(JOB, a_lease())
    (number,) = vertex.wire.jobs
    answer = vertex.wire.answer

    def ends_meanwhile(method, target, token, body):
        if target.endswith(":cancel"):
            vertex.wire.move("SUCCEEDED", name=number)
        return answer(method, target, token, body)

    vertex.wire.answer = ends_meanwhile
    vertex.runner.cancel(name)
    assert vertex.runner.look_up(name).state is ExecutionState.SUCCEEDED


def test_a_refused_cancelling_is_not_taken_for_done(vertex):
    name = vertex.runner.start(JOB, a_lease())
    vertex.wire.may = frozenset({"create", "get", "list"})
    with pytest.raises(AccessDenied, match=r"aiplatform\.customJobs\.cancel"):
        vertex.runner.cancel(name)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (429, "RESOURCE_EXHAUSTED", TryAgain),
        (503, "UNAVAILABLE", TryAgain),
        (400, "INVALID_ARGUMENT", InvalidRequest),
        (403, "PERMISSION_DENIED", AccessDenied),
    ],
)
def test_what_vertex_ai_refuses_is_said_in_its_words(vertex, status, code, error):
    vertex.wire.refusals.append(vertex_wire.Refusal(status, code, "custom_model_training_gpus"))
    with pytest.raises(error, match="custom_model_training_gpus"):
        vertex.runner.start(JOB, a_lease())
    assert vertex.wire.jobs == {}


def test_only_an_account_that_may_be_acted_as_trains(vertex):
    vertex.wire.may_act_as = frozenset()
    with pytest.raises(AccessDenied, match="act as service account"):
        vertex.runner.start(JOB, a_lease())


SHAPES = [shape for shape in EVERYTHING._shapes if shape.machine_type]


def test_vertex_ai_takes_every_machine_that_is_offered(vertex):
    for shape in SHAPES:
        offer = Offer(cloud_run=["NVIDIA_RTX_PRO_6000_96GB"], vertex_ai=[shape.accelerator])
        vertex.runner._offer = offer
        machine = Machine(accelerator=shape.accelerator, count=shape.count)
        vertex.runner.start(JOB, a_lease(), machine)
    assert len(vertex.wire.jobs) == len(SHAPES) > 40


# --- which of the two -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("machine", "is_on_vertex"),
    [
        (None, False),
        (Machine(accelerator="NVIDIA_L4_24GB", count=1), False),
        (Machine(accelerator="NVIDIA_L4_24GB", count=4), True),
        (Machine(count=2), True),
        (H100, True),
    ],
)
def test_a_job_runs_where_its_machine_is_and_is_found_there_again(vertex, machine, is_on_vertex):
    cloud_run = MemoryRunner(MemoryClock())
    offer = Offer(cloud_run=["NVIDIA_L4_24GB"], vertex_ai=["NVIDIA_L4_24GB", "NVIDIA_H100_80GB"])
    runner = EngineRunner(offer, cloud_run=cloud_run, vertex_ai=vertex.runner)
    vertex.runner._offer = offer
    lease = a_lease()
    name = runner.start(JOB, lease, machine)
    assert (len(vertex.wire.jobs), len(cloud_run.started)) == (is_on_vertex, not is_on_vertex)
    assert [one.name for one in runner.running()] == [name]
    assert runner.look_up(name).lease == lease
    runner.cancel(name)
    vertex.settle()
    assert runner.look_up(name).state is ExecutionState.CANCELLED
