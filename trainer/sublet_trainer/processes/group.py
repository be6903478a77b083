"""
The ranks of a training as processes that torchrun has started. They talk over the job's own network
(loopback, where all are in one container): bookkeeping over gloo; gradients, and pieces of a model
that is split, over NCCL where they are on GPUs.

Nothing here waits for ever: a rank that dies breaks its connections or, if its machine is gone, the
time limit of a collective; either ends every rank, and the job's next attempt resumes.

Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import (  # type: ignore[attr-defined]  # they are there
    HashStore,
    PrefixStore,
    Store,
    TCPStore,
)
from torch.distributed.tensor import DTensor

from sublet.codec import decode, encode
from sublet.errors import SubletError
from sublet_trainer.data.corpus import StepDocuments
from sublet_trainer.defects import described
from sublet_trainer.devices import device_of
from sublet_trainer.processes.launch import ALONE, Rank
from sublet_trainer.processes.sharing import Divisor, Share, decode_share, encode_share, shares_of
from sublet_trainer.stops import Dismissed, Interrupted, RankLost, Stop

T = TypeVar("T")
P = ParamSpec("P")

COLLECTIVE_LIMIT: Final = timedelta(minutes=10)
"""Longer than reading and tokenising a block, or uploading a part, while the others wait."""


_FIRST_IS_HERE: Final = "first is here"
_FIRST_HAS_ENDED: Final = "first has ended"
_FAILURE: Final = "failure"


@dataclass(frozen=True, slots=True)
class _LastWords:
    reason: str
    message: str


class Failure(SubletError):
    """Raised in the first rank when another has failed: in its words, with its code."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason  # type: ignore[misc]  # of the class that was raised over there


def _is_broken_connection(end: Exception) -> bool:
    """Gloo raises plain RuntimeErrors, which name its own source files."""
    return isinstance(end, dist.DistError) or (isinstance(end, RuntimeError) and "gloo" in str(end))


def _noticing_the_lost(collective: Callable[P, T]) -> Callable[P, T]:
    @wraps(collective)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return collective(*args, **kwargs)
        except RuntimeError as problem:
            if _is_broken_connection(problem):
                raise RankLost("another rank does not answer") from None
            raise

    return call


class _Word(IntEnum):
    GO_ON = 0
    ENDED = 1
    INTERRUPTED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Where the ranks of a training find each other."""

    store: Store
    rank: Rank

    @classmethod
    def of_one(cls) -> "Meeting":
        """For a model that is in pieces although there is one process: it is computed the same."""
        return cls(store=HashStore(), rank=ALONE)

    @classmethod
    def at(cls, rank: Rank) -> "Meeting":
        """
        Raises:
            Dismissed: the first rank has nothing to do, and so the others have not.
            RankLost: the first rank has not come within COLLECTIVE_LIMIT.
        """
        try:
            store = TCPStore(rank.host, rank.port, timeout=COLLECTIVE_LIMIT, wait_for_workers=False)
            if rank.index:
                store.wait([_FIRST_IS_HERE])
                if store.check([_FIRST_HAS_ENDED]):
                    raise Dismissed("the first rank has nothing to do")
        except dist.DistError as problem:
            raise RankLost(f"the first rank is not there: {type(problem).__name__}") from None
        return cls(store=store, rank=rank)


def dismiss_others(rank: Rank) -> None:
    """By the first rank, if it has no lease to train under."""
    meeting = Meeting.at(rank)
    meeting.store.set(_FIRST_HAS_ENDED, "")
    meeting.store.set(_FIRST_IS_HERE, "")


class Group:
    """
    The adapter's gradients are added in one flat all-reduce a step, not by DDP: that would wrap the
    model's forward pass and has to be told which rows to leave out, to hide a few milliseconds.

    Raises:
        RankLost: not every rank has come within COLLECTIVE_LIMIT.
    """

    def __init__(self, meeting: Meeting) -> None:
        rank = meeting.rank
        self.is_first = rank.index == 0
        self.device = device_of(rank.index_in_node)
        self._store = meeting.store
        self._count = rank.count
        if self.is_first:
            self._store.set(_FIRST_IS_HERE, "")
        if rank.is_on_one_node:
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        with self.ending_together():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo",
                store=PrefixStore("group", meeting.store),
                rank=rank.index,
                world_size=rank.count,
                timeout=COLLECTIVE_LIMIT,
            )

    @contextmanager
    def ending_together(self) -> Iterator[None]:
        """
        For the whole of what a rank does: say why it ends, and hear why another did.

        Raises:
            Failure: in the first rank, if another failed; in its words.
            RankLost: another rank ended without a word.
            Dismissed: in the others, if the first has ended.
        """
        try:
            yield
        except Exception as end:
            if isinstance(end, RankLost) or _is_broken_connection(end):
                raise self._why_ended() from None
            self._leave_word(end)
            raise

    def leave(self) -> None:
        if self.is_first:
            self._leave_word(None)
        dist.destroy_process_group()

    def agree(self, act: Callable[[], T]) -> T:
        try:
            done = act()
        except Exception as end:
            self._leave_word(end)
            with suppress(RankLost):  # the others are gone already
                self._exchange(_Word.INTERRUPTED if isinstance(end, Interrupted) else _Word.ENDED)
            raise
        match self._exchange(_Word.GO_ON):
            case _Word.INTERRUPTED:
                raise Interrupted("another rank was stopped by SIGTERM")
            case _Word.ENDED:
                raise RankLost("another rank has ended")
            case _:
                return done

    def tell(self, value: T | None, kind: type[T]) -> T:
        return decode(self.tell_bytes(encode(value)), kind)

    @_noticing_the_lost
    def tell_bytes(self, content: bytes) -> bytes:
        size = torch.tensor([len(content)])
        dist.broadcast(size, src=0)
        if not int(size):
            return b""
        told = _tensor_of(content) if self.is_first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(told, src=0)
        return content if self.is_first else told.numpy().tobytes()

    def deal(
        self, steps: Iterable[StepDocuments], *, divisor: Divisor, capacity: int, at_once: int
    ) -> Iterator[Share]:
        remaining = iter(steps)
        while True:
            step = self.agree(lambda: next(remaining, None) if self.is_first else None)
            shares = (
                shares_of(
                    step,
                    divisor=divisor,
                    num_ranks=self._count,
                    capacity=capacity,
                    at_once=at_once,
                )
                if step
                else [None] * self._count
            )
            own = self._scatter([encode_share(one) if one else b"" for one in shares])
            if not own:
                return
            yield decode_share(own)

    @_noticing_the_lost
    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        names = sorted(numbers)
        sums = torch.tensor([numbers[name] for name in names], dtype=torch.float64)
        dist.all_reduce(sums)
        return dict(zip(names, sums.tolist(), strict=True))

    @_noticing_the_lost
    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        held = [
            one.grad
            for one in parameters
            if one.grad is not None and not isinstance(one.grad, DTensor)
        ]
        if not held:
            return  # pieces of a split model are added in its backward pass
        flat = torch.cat([gradient.flatten() for gradient in held])
        dist.all_reduce(flat)
        sums = torch.split(flat, [gradient.numel() for gradient in held])
        for gradient, added in zip(held, sums, strict=True):
            gradient.copy_(added.view_as(gradient))

    @_noticing_the_lost
    def _exchange(self, word: _Word) -> int:
        gravest = torch.tensor([int(word)])
        dist.all_reduce(gravest, dist.ReduceOp.MAX)
        return int(gravest)

    @_noticing_the_lost
    def _scatter(self, contents: list[bytes]) -> bytes:
        """To each rank its own; padded to the longest, as gloo wants it."""
        sizes = torch.tensor([len(one) for one in contents])
        dist.broadcast(sizes, src=0)
        longest, own_size = int(sizes.max()), int(sizes[dist.get_rank()])
        if not longest:
            return b""
        own = torch.empty(longest, dtype=torch.uint8)
        padded = [_tensor_of(one.ljust(longest, b"\0")) for one in contents]
        dist.scatter(own, padded if self.is_first else None, src=0)
        return own[:own_size].numpy().tobytes()

    # --- how it ended -----------------------------------------------------------------------------

    def _leave_word(self, end: Exception | None) -> None:
        with suppress(RuntimeError):  # where the store is gone, nobody is left to read it
            if self.is_first:
                self._store.set(_FIRST_HAS_ENDED, "")
            elif end and not isinstance(end, Stop):
                self._store.set(_FAILURE, encode(_LastWords(*described(end))).decode())

    def _why_ended(self) -> Exception:
        with suppress(RuntimeError):
            if not self.is_first and self._store.check([_FIRST_HAS_ENDED]):
                return Dismissed("the first rank has ended")
            if self.is_first and self._store.check([_FAILURE]):
                said = decode(self._store.get(_FAILURE), _LastWords)
                return Failure(said.reason, said.message)
        return RankLost("another rank has ended without a word")


def _tensor_of(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
