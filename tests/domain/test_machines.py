"""Which machine a job gets, and in which words it is told that there is none."""

import pytest

from sublet.errors import InvalidRequest
from sublet.machines import EVERYTHING, Engine, Machine, Offer

TWO_ENGINES = Offer(
    cloud_run=["NVIDIA_L4_24GB"],
    vertex_ai=["NVIDIA_L4_24GB", "NVIDIA_H100_80GB", "NVIDIA_B200_180GB"],
)


def asked(accelerator: str = "", count: int = 0) -> Machine:
    return Machine(accelerator=accelerator, count=count)


@pytest.mark.parametrize(
    ("machine", "engine", "machine_type", "num_nodes"),
    [
        (None, Engine.CLOUD_RUN, "", 1),
        (asked(count=1), Engine.CLOUD_RUN, "", 1),
        (asked(count=2), Engine.VERTEX_AI, "g2-standard-24", 1),
        (asked("NVIDIA_L4_24GB"), Engine.CLOUD_RUN, "", 1),
        (asked("NVIDIA_H100_80GB"), Engine.VERTEX_AI, "a3-highgpu-1g", 1),
        (asked("NVIDIA_H100_80GB", 8), Engine.VERTEX_AI, "a3-highgpu-8g", 1),
        (asked("NVIDIA_H100_80GB", 24), Engine.VERTEX_AI, "a3-highgpu-8g", 3),
        (asked("NVIDIA_B200_180GB"), Engine.VERTEX_AI, "a4-highgpu-8g", 1),
        (asked("NVIDIA_B200_180GB", 64), Engine.VERTEX_AI, "a4-highgpu-8g", 8),
    ],
)
def test_a_job_gets_the_machines_that_it_asks_for(machine, engine, machine_type, num_nodes):
    shape = TWO_ENGINES.shape_of(machine)
    assert (shape.engine, shape.machine_type, shape.num_nodes) == (engine, machine_type, num_nodes)
    assert machine is None or machine.count in (0, shape.count)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (asked("NVIDIA_L4_24GB", 3), "NVIDIA_L4_24GB x 3; this deployment has 1, 2, 4, 8, 16, "),
        (asked("NVIDIA_B200_180GB", 4), "this deployment has 8, 16, 24, 32, 40, 48, 56 or 64 of"),
        (asked("NVIDIA_H100_80GB", -1), "NVIDIA_H100_80GB x -1"),
        (asked("NVIDIA_H100_80GB", 72), "NVIDIA_H100_80GB x 72"),
        (
            asked("AMD_MI300X_192GB", 8),
            "AMD_MI300X_192GB x 8; this deployment has NVIDIA_B200_180GB, NVIDIA_H100_80GB, NVI",
        ),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(machine, words):
    with pytest.raises(InvalidRequest, match=words):
        TWO_ENGINES.shape_of(machine)


def test_a_deployment_without_vertex_ai_has_one_accelerator():
    alone = Offer(cloud_run=["NVIDIA_RTX_PRO_6000_96GB"])
    assert alone.machine_of(asked(count=1)) == asked("NVIDIA_RTX_PRO_6000_96GB", 1)
    with pytest.raises(InvalidRequest, match="this deployment has 1 of them"):
        alone.shape_of(asked(count=2))
    with pytest.raises(InvalidRequest, match="this deployment has NVIDIA_RTX_PRO_6000_96GB"):
        alone.shape_of(asked("NVIDIA_H100_80GB", 8))


@pytest.mark.parametrize(
    "names",
    [{"cloud_run": ["NVIDIA_H100_80GB"]}, {"cloud_run": ["NVIDIA_L4_24GB"], "vertex_ai": ["L4"]}],
)
def test_an_offer_of_what_nobody_has_is_refused(names):
    with pytest.raises(InvalidRequest, match="expected one of NVIDIA_"):
        Offer(**names)


def test_a_number_of_accelerators_has_one_shape_on_each_engine():
    shapes = [(shape.engine, shape.accelerator, shape.count) for shape in EVERYTHING._shapes]
    assert len({*shapes}) == len(shapes)
