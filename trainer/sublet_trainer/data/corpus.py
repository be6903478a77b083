"""
The order in which a dataset's documents are trained on: a pure function of seed and epoch.

An epoch visits the object's blocks in a shuffled order and the documents of each in a shuffled
order; only one block is in memory, tokenised, so memory does not grow with the object. A dataset of
one block (64 MiB of text) is thus read once, kept, and shuffled exactly. A larger one is first read
through, so that a bad row is found before a step is trained, and then again by block in each epoch,
always at the same generation. Where to go on is three numbers, and going on needs nothing else.

What is shuffled are examples: the documents of a row, which for a group are several, stay together
in one step. What this does not do: mix documents of different blocks within a step.

Where rows are held out for evaluation, they are some of the object's first block, chosen by the
seed: they are found without reading the rest, and are in memory once, whatever the object's size.

Shapes: E examples of a block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.jobs import TrainingSettings
from sublet_trainer.data.blocks import BLOCK_BYTES, Block, BlockReader, RowTally, TokenisedBlock
from sublet_trainer.data.documents import Document

HELD_OUT_SHARE: Final = 0.1
MIN_ROWS_TO_HOLD_OUT: Final = 2
HOLDING_OUT: Final = 2**32 - 1
"""Sets its choice apart from every epoch's shuffle."""
MAX_HELD_OUT: Final = 500
"""Rows: enough for a mean within a few hundredths of a nat, and seconds to evaluate."""


@dataclass(frozen=True, slots=True)
class Position:
    """The next step to train: in which epoch, at which place of its order of blocks, which one."""

    epoch: int = 0
    place: int = 0
    step: int = 0


START: Final = Position()


@dataclass(frozen=True, slots=True)
class StepDocuments:
    """`epoch` is how many passes over the data are done once this step is."""

    documents: list[Document]
    following: Position
    epoch: float


class Corpus:
    """`blocks` and `tallies` are what a checkpoint must keep so that restore() can go on."""

    def __init__(
        self, reader: BlockReader, settings: TrainingSettings, *, url: str, size_bytes: int
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._url = url
        self._size_bytes = size_bytes
        self._loaded: tuple[int, TokenisedBlock] | None = None
        self.blocks: Sequence[Block] = ()
        self.tallies: dict[int, RowTally] = {}

    @property
    def tally(self) -> RowTally:
        """Of every block read so far; after one epoch, of the whole dataset."""
        return sum(self.tallies.values(), RowTally())

    def survey(self, *, num_rows_registered: int) -> int:
        """
        Cut the object into blocks; return how many steps training on it takes: exactly if it is one
        block, else as the block that is trained on first lets expect.

        Args:
            num_rows_registered: what the dataset's registration counted; 0 if it did not finish.

        Raises:
            InvalidRequest: a line is no usable row, or there is nothing to learn.
            FailedPrecondition: these are not as many rows as were registered.
        """
        is_one_block = self._size_bytes <= BLOCK_BYTES
        if is_one_block:
            self.blocks = [Block(0, self._size_bytes, 1)]
            num_rows = self._load(0).tally.num_rows
        else:
            self.blocks, num_rows = self._reader.cut()
        if num_rows_registered not in (0, num_rows):
            raise FailedPrecondition(
                f"{self._url} has {num_rows} rows; the registration counted {num_rows_registered}: "
                "register the object again"
            )
        first = int(self._block_order(0)[0])
        block = self._load(first)
        if is_one_block:
            epochs = range(self._settings.epochs)
            num_steps = sum(len(self._batches(block, epoch, first)) for epoch in epochs)
            self.check_has_steps(num_steps)
            return num_steps
        share = (self.blocks[first].end - self.blocks[first].start) / self._size_bytes
        num_steps = len(self._batches(block, 0, first))
        return max(1, round(num_steps / share * self._settings.epochs))

    def restore(self, blocks: Sequence[Block], tallies: Mapping[int, RowTally]) -> None:
        """Take over what an earlier survey found, instead of another."""
        self.blocks, self.tallies = blocks, dict(tallies)

    def check_has_steps(self, num_steps: int) -> None:
        """
        Raises:
            InvalidRequest: there was no step, because no row has anything to learn.
        """
        if num_steps:
            return
        tally = self.tally
        if tally.num_without_variance > tally.num_without_supervised_tokens:
            raise InvalidRequest(
                f"{self._url}: all rewards are equal inside every one of "
                f"{tally.num_without_variance} groups, so nothing tells a good sample from a bad "
                "one; sample more for each prompt, or at a higher temperature, or score more finely"
            )
        if tally.num_dropped:
            raise InvalidRequest(
                f"{self._url}: nothing is left to learn, since {tally.num_dropped} of "
                f"{tally.num_rows} rows were dropped as longer than "
                f"{self._settings.max_context_length} tokens; raise max_context_length, or let "
                "them be cut"
            )
        raise InvalidRequest(
            f"{self._url}: none of {tally.num_rows} rows has a token to learn within its "
            f"first {self._settings.max_context_length}; raise max_context_length, or check "
            "the rows' weights"
        )

    def steps(self, position: Position) -> Iterator[StepDocuments]:
        """Every step from `position` on; begun anywhere, it goes on as if it had never stopped."""
        first_place, first_step = position.place, position.step
        for epoch in range(position.epoch, self._settings.epochs):
            order = self._block_order(epoch)
            for place in range(first_place, len(order)):
                index = int(order[place])
                block = self._load(index)
                batches = self._batches(block, epoch, index)
                for number in range(first_step, len(batches)):
                    done = (place + (number + 1) / len(batches)) / len(order)
                    yield StepDocuments(
                        [one for chosen in batches[number] for one in block.example(int(chosen))],
                        Position(epoch, place, number + 1),
                        epoch + done,
                    )
                first_step = 0
                del block  # before the next one grows
            first_place = 0

    def held_out(self) -> list[Document]:
        """
        What is never trained on, if the settings want some held out.

        Raises:
            InvalidRequest: there are too few rows to hold any out.
        """
        if not self._settings.eval_auto_carveout:
            return []
        block = self._load(0)
        return [one for place in self._held_out(block) for one in block.example(int(place))]

    def _held_out(self, block: TokenisedBlock) -> NDArray[np.int64]:
        """Places in the first block, in order. Raises as held_out() does."""
        if block.num_examples < MIN_ROWS_TO_HOLD_OUT:
            raise InvalidRequest(
                f"{self._url} has {block.num_examples} rows to learn from; to hold some out for "
                f"evaluation, expected {MIN_ROWS_TO_HOLD_OUT} or more"
            )
        number = min(MAX_HELD_OUT, max(1, round(HELD_OUT_SHARE * block.num_examples)))
        choice = np.random.default_rng([self._settings.seed, HOLDING_OUT])
        return np.sort(choice.permutation(block.num_examples)[:number])

    def _block_order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._settings.seed, epoch, 0]).permutation(len(self.blocks))

    def _batches(self, block: TokenisedBlock, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """Which examples of the block each step of this epoch trains on."""
        shuffle = np.random.default_rng([self._settings.seed, epoch, 1 + index])
        order_E = shuffle.permutation(block.num_examples)
        if index == 0 and self._settings.eval_auto_carveout:
            order_E = order_E[~np.isin(order_E, self._held_out(block))]
        return cut_evenly(order_E, block.lengths_E[order_E], self._settings.batch_size)

    def _load(self, index: int) -> TokenisedBlock:
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = None  # lets go of the old block before the new one grows
            self._loaded = index, self._reader.load(self.blocks[index])
            self.tallies[index] = self._loaded[1].tally
        return self._loaded[1]


def cut_evenly(
    order_E: NDArray[np.int64], lengths_E: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """
    Cut `order_E` into the fewest steps whose even share is at most `batch_size` tokens.

    Filling each step to the brim would leave a runt at the end: a step of one document at the full
    learning rate. A step ends with the example that reaches its share, so none is empty.
    """
    if not len(order_E):
        return []
    reached_E = np.cumsum(lengths_E)
    num_tokens = int(reached_E[-1])
    num_steps = -(-num_tokens // batch_size)
    shares = np.arange(1, num_steps + 1) * num_tokens // num_steps
    ends = np.unique(np.searchsorted(reached_E, shares) + 1)
    return np.split(order_E, ends[:-1])
