"""
What Terraform describes and grants for Vertex AI is what the runner sends and asks for, by the wire
that is documented.
"""

import json
import re

import pytest
import vertex_wire
from contracts.test_cloud_ports import AsToken
from terraform.plan import ROOT, Plan, environment_of, kept

from sublet.deployment import Deployment
from sublet.errors import AccessDenied
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.vertex_runner import VertexRunner
from sublet.machines import CLOUD_RUN, EVERYTHING, Engine, Machine
from sublet.names import AccountName, JobName, LeaseName
from sublet.ports import ExecutionState
from sublet_trainer.__main__ import Environment
from sublet_trainer.processes.launch import torchrun_arguments

PROJECT = "sublet-plan"
JOB = JobName.of(AccountName.of("acme"), "j")
LEASE = LeaseName.of(AccountName.of("acme"), "ls-1")
TWO_NODES = Machine(accelerator="NVIDIA_H100_80GB", count=16)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return kept("platform")


def told_to(plan: Plan, unit: str) -> dict[str, str]:
    functions = plan.of("google_cloudfunctions2_function")
    return environment_of(next(one for one in functions if one.values["name"] == unit))


@pytest.fixture
def vertex(plan):
    """Vertex AI's wire, with the rights that a unit has in the plan."""
    with vertex_wire.served() as wire:
        wire.may_act_as = frozenset({f"sublet-trainer@{PROJECT}.iam.gserviceaccount.com"})
        yield wire


def runner_of(unit: str, plan: Plan, wire: vertex_wire.VertexWire) -> VertexRunner:
    """As the unit's own deployment makes it, with all that Terraform tells and grants the unit."""
    told = told_to(plan, unit)
    wire.parent = told["SUBLET_VERTEX_AI"]
    wire.may = _custom_job_verbs(unit, plan)
    endpoints = Endpoints(vertex_ai=wire.url)
    return VertexRunner(
        told["SUBLET_VERTEX_AI"],
        told["SUBLET_VERTEX_TEMPLATE"],
        Deployment(told).offer,
        AsToken(endpoints, wire.token),
        endpoints,
    )


def _custom_job_verbs(unit: str, plan: Plan) -> frozenset[str]:
    return frozenset(
        permission.rpartition(".")[2]
        for grant in plan.grants()
        if grant.member == f"serviceAccount:{unit}@{PROJECT}.iam.gserviceaccount.com"
        for permission in plan.permissions_of(grant.role) or ()
        if permission.startswith("aiplatform.customJobs.")
    )


def test_the_custom_job_that_terraform_describes_is_one_that_vertex_ai_takes(plan, vertex):
    """And its container finds in it what the trainer asks its environment for."""
    execution = runner_of("start-training", plan, vertex).start(JOB, LEASE, TWO_NODES)
    (job,) = vertex.jobs.values()
    for pool in job["jobSpec"]["workerPoolSpecs"]:
        told = {one["name"]: one["value"] for one in pool["containerSpec"]["env"]}
        environment = Environment.parse(told)
        assert (environment.lease, environment.execution) == (LEASE, execution)
        (bucket,) = (b for b in plan.of("google_storage_bucket") if b.name == "base_models")
        assert str(environment.models) == f"/gcs/{bucket.values['name']}"
        broker = next(
            o for o in plan.of("google_cloud_run_v2_service") if o.at("name") == "lease-broker"
        )
        assert environment.broker_url == environment_of(broker)["SUBLET_SELF_URL"]


def test_vertex_ai_is_asked_where_the_data_is(plan):
    told = told_to(plan, "start-training")
    parent, template = told["SUBLET_VERTEX_AI"], told["SUBLET_VERTEX_TEMPLATE"]
    runner = VertexRunner(parent, template, EVERYTHING, None, Endpoints())
    assert runner._api == "https://europe-west4-aiplatform.googleapis.com/v1"
    assert Endpoints.from_environment({"SUBLET_ENDPOINT_VERTEX_AI": "http://x"}).vertex_ai


def test_the_machines_of_a_custom_job_become_one_group_of_processes(plan, vertex):
    """Each is told all addresses and which one is its own, as Vertex AI documents CLUSTER_SPEC."""
    runner_of("start-training", plan, vertex).start(JOB, LEASE, TWO_NODES)
    (job,) = vertex.jobs.values()
    pools = job["jobSpec"]["workerPoolSpecs"]
    cluster = {
        f"workerpool{number}": [
            f"cmle-training-workerpool{number}-0123456789-{index}:2222"
            for index in range(int(pool["replicaCount"]))
        ]
        for number, pool in enumerate(pools)
    }
    machines = [(pool, index) for pool, hosts in cluster.items() for index in range(len(hosts))]
    assert len(machines) == 2
    for rank, (pool, index) in enumerate(machines):
        task = {"type": pool, "index": index}
        spec = json.dumps({"cluster": cluster, "environment": "cloud", "task": task})
        arguments = torchrun_arguments({"CLUSTER_SPEC": spec}, processes=8)
        assert {"--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=8"} <= {*arguments}
        assert "--master-addr=cmle-training-workerpool0-0123456789-0" in arguments


def test_a_unit_has_the_rights_on_vertex_ai_that_it_needs_and_no_other(plan, vertex):
    execution = runner_of("start-training", plan, vertex).start(JOB, LEASE, TWO_NODES)
    sweep = runner_of("sweep-leases", plan, vertex)
    (listed,) = sweep.running()
    assert listed.name == execution
    sweep.cancel(execution)
    assert sweep.look_up(f"vertex-job-{next(iter(vertex.jobs))}").state is ExecutionState.RUNNING
    for unit, use in (
        ("start-training", lambda runner: runner.start(JOB, LEASE, TWO_NODES)),
        ("sweep-leases", lambda runner: use_all(runner, vertex)),
    ):
        for verb in _custom_job_verbs(unit, plan):
            vertex.jobs.clear()
            runner = runner_of(unit, plan, vertex)
            vertex.may -= {verb}
            with pytest.raises(AccessDenied, match=verb):
                use(runner)


def use_all(runner: VertexRunner, wire: vertex_wire.VertexWire) -> None:
    """What the sweep does with a custom job that somebody else has started."""
    starter, wire.may = wire.may, wire.may | {"create", "list"}
    runner.start(JOB, LEASE, TWO_NODES)
    wire.may = starter
    (job,) = wire.jobs.values()
    del job["labels"]
    (stray,) = runner.running()
    runner.cancel(stray.name)


def test_terraform_takes_the_accelerators_that_the_product_knows():
    text = (ROOT / "terraform" / "platform" / "variables.tf").read_text()
    listed = text.partition('variable "vertex_accelerators"')[2].partition("error_message")[0]
    names = set(re.findall(r"NVIDIA_\w+", listed))
    assert {s.accelerator for s in EVERYTHING._shapes if s.engine is Engine.VERTEX_AI} == names
    text = (ROOT / "terraform" / "platform" / "vertex.tf").read_text()
    assert dict(re.findall(r'(nvidia\S+)\s+= "(NVIDIA\w+)"', text)) == {
        google: name for name, google in CLOUD_RUN.items()
    }
