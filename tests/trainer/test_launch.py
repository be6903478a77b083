"""How one container, or one of several, becomes a process for each device."""

import json

import pytest

from sublet.errors import InvalidRequest
from sublet_trainer.processes.launch import Rank, num_processes, torchrun_arguments


def cluster(task, index, *, workers=2):
    """As Vertex AI tells it to each replica."""
    pools = {
        "workerpool0": ["cmle-training-workerpool0-ab12-0:2222"],
        "workerpool1": [f"cmle-training-workerpool1-ab12-{at}:2222" for at in range(workers)],
    }
    spec = {"cluster": pools, "environment": "cloud", "task": {"type": task, "index": index}}
    return {"CLUSTER_SPEC": json.dumps(spec)}


def test_one_device_on_one_node_is_one_process_that_becomes_nothing_else():
    assert torchrun_arguments({}, processes=1) is None


def test_a_process_that_torchrun_has_started_does_not_start_it_again():
    assert torchrun_arguments({"TORCHELASTIC_RUN_ID": "run"}, processes=8) is None


def test_ranks_that_a_platform_gives_its_nodes_are_not_torchruns():
    told = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "0"}
    assert Rank.parse(told) is None
    assert torchrun_arguments({**told, **cluster("workerpool1", 0)}, processes=1)


def test_several_devices_in_one_container_meet_on_its_loopback():
    arguments = torchrun_arguments({}, processes=8)
    assert {"--nnodes=1", "--nproc-per-node=8", "--standalone", "--local-addr=127.0.0.1"} <= {
        *arguments
    }
    assert arguments[-2:] == ["-m", "sublet_trainer"]


@pytest.mark.parametrize(
    ("task", "index", "node"),
    [("workerpool0", 0, 0), ("workerpool1", 0, 1), ("workerpool1", 1, 2)],
    ids=["primary", "first worker", "second worker"],
)
def test_nodes_of_a_vertex_ai_job_meet_at_the_primary(task, index, node):
    arguments = torchrun_arguments(cluster(task, index), processes=4)
    assert {
        "--nnodes=3",
        "--nproc-per-node=4",
        f"--node-rank={node}",
        "--master-addr=cmle-training-workerpool0-ab12-0",
        "--master-port=2222",
    } <= {*arguments}


@pytest.mark.parametrize("environ", [{}, cluster("workerpool0", 0)], ids=["one node", "many"])
def test_a_rank_that_dies_is_not_started_again_under_a_lease_that_others_hold(environ):
    assert "--max-restarts=0" in torchrun_arguments(environ, processes=2)


@pytest.mark.parametrize(
    "spec",
    ["{}", "no JSON", cluster("workerpool3", 0)["CLUSTER_SPEC"]],
    ids=["empty", "garbage", "an evaluator"],
)
def test_what_is_no_cluster_is_refused(spec):
    with pytest.raises(InvalidRequest, match="CLUSTER_SPEC"):
        torchrun_arguments({"CLUSTER_SPEC": spec}, processes=1)


def test_there_is_a_process_for_each_gpu_of_the_machine(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert num_processes({}, tmp_path) == 3
    assert num_processes({"SUBLET_PROCESSES": "2"}, tmp_path) == 2


def test_a_machine_without_gpus_has_one_process(tmp_path):
    assert num_processes({}, tmp_path) == 1


@pytest.mark.parametrize("said", ["0", "-1", "two", "²"])
def test_a_number_of_processes_that_is_none_is_refused(tmp_path, said):
    with pytest.raises(InvalidRequest, match="SUBLET_PROCESSES"):
        num_processes({"SUBLET_PROCESSES": said}, tmp_path)


def test_a_rank_knows_its_place_from_torchruns_variables():
    told = {
        "TORCHELASTIC_RUN_ID": "run",
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "primary",
        "MASTER_PORT": "2222",
    }
    rank = Rank.parse(told)
    assert (rank.index, rank.count, rank.index_in_node) == (9, 16, 1)
    assert not rank.is_on_one_node
    assert Rank.parse({**told, "LOCAL_WORLD_SIZE": "16"}).is_on_one_node
    assert Rank.parse({}) is None
    assert Rank.parse({"TORCHELASTIC_RUN_ID": "run", "RANK": "0", "WORLD_SIZE": "1"}) is None
