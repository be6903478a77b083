"""
The order in which a dataset's documents are trained on: a pure function of seed and epoch.

An epoch visits the object's blocks in a shuffled order and the documents of each in a shuffled
order; only one block is in memory, tokenised, so memory does not grow with the object. A dataset of
one block (64 MiB of text) is thus read once, kept, and shuffled exactly. A larger one is first read
through, so that a bad row is found before a step is trained, and then again by block in each epoch,
always at the same generation. Where to go on is three numbers, and going on needs nothing else.

What this does not do: mix documents of different blocks within a step.

Shapes: D documents of a block.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sublet.errors import FailedPrecondition, InvalidRequest
from sublet.jobs import TrainingSettings
from sublet_trainer.blocks import BLOCK_BYTES, Block, BlockReader, RowTally, TokenisedBlock
from sublet_trainer.documents import Document


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
        if not num_steps:
            raise InvalidRequest(
                f"{self._url}: none of {self.tally.num_rows} rows has a token to learn within its "
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
                        [block.document(int(chosen)) for chosen in batches[number]],
                        Position(epoch, place, number + 1),
                        epoch + done,
                    )
                first_step = 0
            first_place = 0

    def _block_order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._settings.seed, epoch, 0]).permutation(len(self.blocks))

    def _batches(self, block: TokenisedBlock, epoch: int, index: int) -> list[NDArray[np.int64]]:
        """Which documents of the block each step of this epoch trains on."""
        shuffle = np.random.default_rng([self._settings.seed, epoch, 1 + index])
        order_D = shuffle.permutation(block.num_documents)
        return cut_evenly(order_D, block.lengths_D[order_D], self._settings.batch_size)

    def _load(self, index: int) -> TokenisedBlock:
        if self._loaded is None or self._loaded[0] != index:
            self._loaded = None  # lets go of the old block before the new one grows
            self._loaded = index, self._reader.load(self.blocks[index])
            self.tallies[index] = self._loaded[1].tally
        return self._loaded[1]


def cut_evenly(
    order_D: NDArray[np.int64], lengths_D: NDArray[np.int64], batch_size: int
) -> list[NDArray[np.int64]]:
    """
    Cut `order_D` into the fewest steps whose even share is at most `batch_size` tokens.

    Filling each step to the brim would leave a runt at the end: a step of one document at the full
    learning rate. A step ends with the document that reaches its share, so none is empty.
    """
    if not len(order_D):
        return []
    reached_D = np.cumsum(lengths_D)
    num_tokens = int(reached_D[-1])
    num_steps = -(-num_tokens // batch_size)
    shares = np.arange(1, num_steps + 1) * num_tokens // num_steps
    ends = np.unique(np.searchsorted(reached_D, shares) + 1)
    return np.split(order_D, ends[:-1])
