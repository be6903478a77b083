"""
What a training asks of its processes, which are one for each device. The first rank alone holds the
lease and its tokens, reads, tokenises and writes; it deals each step out to all. What the others
get is settings, token ids and checkpoints: no credential leaves the first, and each byte is read
once. Most trainings have one rank, for which all of this is nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import torch
from torch import nn

from sublet_trainer.data.corpus import StepDocuments
from sublet_trainer.devices import device_of
from sublet_trainer.processes.launch import Rank
from sublet_trainer.processes.sharing import Divisor, Share, shares_of

T = TypeVar("T")


class Ranks(Protocol):
    """What a training asks of its processes. Every rank makes the same calls in the same order."""

    @property
    def device(self) -> torch.device: ...

    @property
    def is_first(self) -> bool: ...

    def agree(self, act: Callable[[], T]) -> T:
        """
        Do something on every rank; what is raised on one ends all.

        Raises:
            Interrupted: some rank was stopped by SIGTERM.
            RankLost: another rank has ended.
        """

    def tell(self, value: T | None, kind: type[T]) -> T:
        """The first rank's value, on every rank."""

    def tell_bytes(self, content: bytes) -> bytes: ...

    def deal(
        self, steps: Iterable[StepDocuments], *, divisor: Divisor, capacity: int, at_once: int
    ) -> Iterator[Share]:
        """Each step's share for one rank; only the first rank looks at `steps`."""

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum over all ranks of each number; every rank has the same names."""

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """The gradients of what every rank holds whole become their sum over all ranks."""


class Alone:
    """The only process of a training."""

    is_first: Final = True

    def __init__(self) -> None:
        self.device = device_of()

    def agree(self, act: Callable[[], T]) -> T:
        return act()

    def tell(self, value: T | None, kind: type[T]) -> T:  # noqa: ARG002  others decode by it
        assert value is not None
        return value

    def tell_bytes(self, content: bytes) -> bytes:
        return content

    def deal(
        self, steps: Iterable[StepDocuments], *, divisor: Divisor, capacity: int, at_once: int
    ) -> Iterator[Share]:
        for step in steps:
            yield from shares_of(
                step, divisor=divisor, num_ranks=1, capacity=capacity, at_once=at_once
            )

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        return dict(numbers)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """There is nothing to add."""


@contextmanager
def joined(rank: Rank | None, *, splits: bool) -> Iterator[Ranks]:
    """
    For the whole of what a process does for a training, once it knows that there is one.

    Args:
        rank: None for the only process.
        splits: the model will be in pieces, of one process too.

    Raises:
        RankLost, Dismissed: another process has ended.
        SubletError: in the first, what another failed with.
    """
    if rank is None and not splits:
        yield Alone()
        return
    from sublet_trainer.processes.group import Group, Meeting  # noqa: PLC0415  half a second of imports

    group = Group(Meeting.at(rank) if rank else Meeting.of_one())
    try:
        with group.ending_together():
            yield group
    finally:
        group.leave()
