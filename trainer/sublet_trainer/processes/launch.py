"""
From one container, or one of several nodes, to a process for each device: the trainer becomes
torchrun, which starts it again that often and ends all of them when one ends badly. Nothing heavy
is imported, no credential is at hand, and a machine with one device never comes here.

Source: https://docs.pytorch.org/docs/stable/elastic/run.html;
https://cloud.google.com/vertex-ai/docs/training/distributed-training (CLUSTER_SPEC)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from sublet.errors import InvalidRequest

_OF_TORCHRUN: Final = "TORCHELASTIC_RUN_ID"
"""RANK and WORLD_SIZE alone may be the platform's, and mean nodes."""
_GPU: Final = re.compile(r"nvidia\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """
    Which of a training's processes this is, and where their launcher keeps the store in which they
    meet: torchrun's variables.
    """

    index: int
    count: int
    index_in_node: int
    is_on_one_node: bool
    host: str
    port: int

    @classmethod
    def parse(cls, environ: Mapping[str, str]) -> Self | None:
        """None for a process that torchrun has not started, or has started alone."""
        count = int(environ.get("WORLD_SIZE") or 1)
        if count == 1 or _OF_TORCHRUN not in environ:
            return None
        return cls(
            index=int(environ["RANK"]),
            count=count,
            index_in_node=int(environ["LOCAL_RANK"]),
            is_on_one_node=environ.get("LOCAL_WORLD_SIZE") == environ["WORLD_SIZE"],
            host=environ["MASTER_ADDR"],
            port=int(environ["MASTER_PORT"]),
        )


ALONE: Final = Rank(index=0, count=1, index_in_node=0, is_on_one_node=True, host="", port=0)


class _Task(msgspec.Struct):
    type: str
    index: int


class _ClusterSpec(msgspec.Struct):
    cluster: dict[str, list[str]]
    task: _Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """The machines of a training; the first one's address is `first`."""

    count: int = 1
    index: int = 0
    first: str = ""

    @classmethod
    def parse(cls, cluster_spec: str) -> Self:
        """
        Vertex AI's CLUSTER_SPEC; the first machine is a pool of its own, the others the second.

        Raises:
            InvalidRequest: it is none.
        """
        if not cluster_spec:
            return cls()
        try:
            spec = msgspec.json.decode(cluster_spec, type=_ClusterSpec)
            pools = ("workerpool0", "workerpool1")
            nodes = [(pool, at) for pool in pools for at in range(len(spec.cluster.get(pool, ())))]
            index = nodes.index((spec.task.type, spec.task.index))
            return cls(count=len(nodes), index=index, first=spec.cluster["workerpool0"][0])
        except (msgspec.DecodeError, ValueError, LookupError):
            raise InvalidRequest(
                "CLUSTER_SPEC names no node of workerpool0 or workerpool1 as this one"
            ) from None


def num_processes(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """One for each GPU of this machine, and at least one; SUBLET_PROCESSES says otherwise."""
    said = environ.get("SUBLET_PROCESSES", "")
    if said and not (said.isascii() and said.isdigit() and int(said)):
        raise InvalidRequest(f"got SUBLET_PROCESSES={said!r}; expected a number of processes")
    found = [one for one in devices.glob("nvidia*") if _GPU.fullmatch(one.name)]
    return int(said) if said else max(1, len(found))


def torchrun_arguments(environ: Mapping[str, str], *, processes: int) -> list[str] | None:
    """
    What to become; None if this process is a rank already, or the only one.

    Raises:
        InvalidRequest: CLUSTER_SPEC is none.
    """
    if _OF_TORCHRUN in environ:
        return None
    nodes = Nodes.parse(environ.get("CLUSTER_SPEC", ""))
    if nodes.count * processes == 1:
        return None
    host, _, port = nodes.first.rpartition(":")
    meeting = (
        ["--standalone", "--local-addr=127.0.0.1"]
        if nodes.count == 1
        else [f"--node-rank={nodes.index}", f"--master-addr={host}", f"--master-port={port}"]
    )
    return [
        *("-m", "torch.distributed.run"),
        f"--nnodes={nodes.count}",
        f"--nproc-per-node={processes}",
        "--max-restarts=0",  # another attempt of the job claims the lease anew, and so resumes
        *meeting,
        *("-m", "sublet_trainer"),
    ]
