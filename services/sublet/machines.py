"""
Machines: the accelerators that a job may ask for, by the API's names, and what in Google Cloud has
them. A number that nothing has is refused when the job is asked for, in words that name those that
there are.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sublet.errors import InvalidRequest

MOST_NODES: Final = 8
"""A choice of ours; Vertex AI takes more, and the trainer has not been tried on as many."""


class Engine(StrEnum):
    CLOUD_RUN = "Cloud Run"
    VERTEX_AI = "Vertex AI"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a job asks for: `count` accelerators in all. No name is the deployment's own choice."""

    accelerator: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    One way to have a number of accelerators: `num_nodes` machines of one type with `per_node` each.

    `google_name` is what the engine calls the accelerator; Cloud Run has no machine types.
    """

    engine: Engine
    accelerator: str
    google_name: str
    machine_type: str = ""
    per_node: int = 1
    num_nodes: int = 1

    @property
    def count(self) -> int:
        return self.per_node * self.num_nodes


CLOUD_RUN: Final[Mapping[str, str]] = {
    # Source, of both: https://cloud.google.com/run/docs/configuring/jobs/gpu
    "NVIDIA_L4_24GB": "nvidia-l4",
    "NVIDIA_RTX_PRO_6000_96GB": "nvidia-rtx-pro-6000",
}
"""Cloud Run gives a task one GPU, and a job one task that can train."""

_VERTEX_AI: Final[Mapping[str, tuple[str, Mapping[int, str]]]] = {
    # Names: https://cloud.google.com/vertex-ai/docs/reference/rest/v1/MachineSpec#AcceleratorType
    # What Vertex AI trains on: https://cloud.google.com/vertex-ai/docs/training/configure-compute
    "NVIDIA_L4_24GB": (  # Source: https://cloud.google.com/compute/docs/gpus#l4-gpus
        "NVIDIA_L4",
        {1: "g2-standard-12", 2: "g2-standard-24", 4: "g2-standard-48", 8: "g2-standard-96"},
    ),
    "NVIDIA_A100_40GB": (  # Source: https://cloud.google.com/compute/docs/gpus#a100-40gb
        "NVIDIA_TESLA_A100",
        {1: "a2-highgpu-1g", 2: "a2-highgpu-2g", 4: "a2-highgpu-4g", 8: "a2-highgpu-8g"},
    ),
    "NVIDIA_A100_80GB": (  # Source: https://cloud.google.com/compute/docs/gpus#a100-80gb
        "NVIDIA_A100_80GB",
        {1: "a2-ultragpu-1g", 2: "a2-ultragpu-2g", 4: "a2-ultragpu-4g", 8: "a2-ultragpu-8g"},
    ),
    "NVIDIA_H100_80GB": (  # Source: https://cloud.google.com/compute/docs/gpus#h100-gpus
        "NVIDIA_H100_80GB",
        {1: "a3-highgpu-1g", 2: "a3-highgpu-2g", 4: "a3-highgpu-4g", 8: "a3-highgpu-8g"},
    ),
    "NVIDIA_H200_141GB": (  # Source: https://cloud.google.com/compute/docs/gpus#h200-gpus
        "NVIDIA_H200_141GB",
        {8: "a3-ultragpu-8g"},
    ),
    "NVIDIA_B200_180GB": (  # Source: https://cloud.google.com/compute/docs/gpus#b200-gpus
        "NVIDIA_B200",
        {8: "a4-highgpu-8g"},
    ),
}

ACCELERATORS: Final = tuple(sorted({*CLOUD_RUN, *_VERTEX_AI}))
MOST_ACCELERATORS: Final = 8 * MOST_NODES


def _on_cloud_run(accelerator: str) -> Iterator[Shape]:
    yield Shape(
        engine=Engine.CLOUD_RUN, accelerator=accelerator, google_name=CLOUD_RUN[accelerator]
    )


def _on_vertex_ai(accelerator: str) -> Iterator[Shape]:
    """Machines of each size, and several of the largest."""
    google_name, machine_types = _VERTEX_AI[accelerator]
    largest = max(machine_types)
    for per_node, machine_type in machine_types.items():
        for num_nodes in range(1, MOST_NODES + 1 if per_node == largest else 2):
            yield Shape(
                engine=Engine.VERTEX_AI,
                accelerator=accelerator,
                google_name=google_name,
                machine_type=machine_type,
                per_node=per_node,
                num_nodes=num_nodes,
            )


class Offer:
    """
    What one deployment has. Where Cloud Run and Vertex AI both have what is asked for, it is Cloud
    Run that starts it: in seconds, and for nothing when nothing trains.

    Raises:
        InvalidRequest: an accelerator is not of the table.
    """

    def __init__(self, *, cloud_run: Sequence[str], vertex_ai: Sequence[str] = ()) -> None:
        _check(cloud_run, CLOUD_RUN)
        _check(vertex_ai, _VERTEX_AI)
        self._default = cloud_run[0]
        self._shapes = (
            *(shape for name in cloud_run for shape in _on_cloud_run(name)),
            *(shape for name in vertex_ai for shape in _on_vertex_ai(name)),
        )

    def machine_of(self, machine: Machine) -> Machine:
        """
        The same with every choice made.

        Raises:
            InvalidRequest: as for `shape_of`.
        """
        shape = self.shape_of(machine)
        return Machine(accelerator=shape.accelerator, count=shape.count)

    def shape_of(self, machine: Machine | None, *, on: Engine | None = None) -> Shape:
        """
        What a job runs on; without a number, the fewest that there are.

        Raises:
            InvalidRequest: there is no such machine; names those that there are.
        """
        asked = machine or Machine()
        shapes = [shape for shape in self._shapes if on in (None, shape.engine)]
        named = [s for s in shapes if s.accelerator == (asked.accelerator or self._default)]
        fitting = [shape for shape in named if asked.count in (0, shape.count)]
        if fitting:
            return fitting[0]
        what = f"{asked.accelerator or self._default} x {asked.count}"
        if named:
            raise InvalidRequest.of_field(
                "acceleratorCount", f"got {what}; this deployment has {_counts(named)} of them"
            )
        names = sorted({shape.accelerator for shape in shapes})
        raise InvalidRequest.of_field(
            "acceleratorType", f"got {what}; this deployment has {', '.join(names)}"
        )


def _check(names: Collection[str], table: Collection[str]) -> None:
    for name in names:
        if name not in table:
            raise InvalidRequest(f"got {name!r}; expected one of {', '.join(sorted(table))}")


def _counts(shapes: Collection[Shape]) -> str:
    *most, last = sorted({shape.count for shape in shapes})
    return f"{', '.join(map(str, most))} or {last}" if most else str(last)


EVERYTHING: Final = Offer(cloud_run=tuple(CLOUD_RUN), vertex_ai=tuple(_VERTEX_AI))
"""For a laptop, which has none: every wish is a hint, and what there is trains."""
