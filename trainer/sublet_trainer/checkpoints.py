"""
Checkpoints in the owner's bucket: one object each, complete or not there, named after step and
lease epoch, so that no two holders write the same one. What is too large for one object is written
in parts, the one that names the others last. Nothing is deleted, for the token cannot; a lifecycle
rule on `checkpoints/` does that. The broker remembers which is newest and names it to the next
holder.

Every rank calls the same: the first reads and writes, and tells the others what it has read. Full
weights are gathered from all, in minutes where they are many gigabytes; so such a checkpoint is not
begun on SIGTERM, and comes the more rarely the longer it takes.
"""

from datetime import timedelta
from time import monotonic
from typing import Final

from sublet.errors import AccessDenied, FailedPrecondition, NotFound
from sublet_trainer import snapshot
from sublet_trainer.data.corpus import Corpus
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.leased.output import Output
from sublet_trainer.logs import INFO, WARNING, log
from sublet_trainer.models.adamw import AdamW
from sublet_trainer.models.model import Model
from sublet_trainer.processes.ranks import Ranks
from sublet_trainer.training import TrainingState

QUICK_BYTES: Final = 2**30
"""What is written within 10 s of SIGTERM, at 100 MB/s and more."""
MOST_TIME_SHARE: Final = 0.1
"""Of all time, what may go into writing checkpoints."""


class Shelf:
    """
    Where the first rank puts checkpoints and finds them.

    Args:
        belongs_to: digest of everything that must be equal for a checkpoint to fit.
    """

    def __init__(
        self, output: Output, lease: HeldLease, corpus: Corpus, *, belongs_to: str
    ) -> None:
        self.corpus = corpus
        self.belongs_to = belongs_to
        self._output = output
        self._lease = lease

    def find(self, object_name: str) -> bytes:
        """
        What may be loaded; nothing if there is no checkpoint of this name that fits.

        Raises:
            TryAgain: storage was not to be reached.
        """
        if not object_name:
            return b""
        try:
            content = self._content(object_name)
            snapshot.verify(content, belongs_to=self.belongs_to)
        except (NotFound, AccessDenied, FailedPrecondition) as problem:
            # Training again costs time; failing would cost the job.
            log(WARNING, "training begins anew", checkpoint=object_name, because=str(problem))
            return b""
        return content

    def part(self, object_name: str, number: int) -> bytes:
        """
        Raises:
            NotFound, AccessDenied, TryAgain: as Output.read_back().
        """
        return self._content(_part_of(object_name, number))

    def take_up(self, object_name: str, cursor: snapshot.Cursor, step: int) -> None:
        self.corpus.restore(cursor.blocks, cursor.tallies)
        self._lease.announce_checkpoint(object_name)
        log(INFO, "resumed", checkpoint=object_name, step=step)

    def put(self, content: bytes, *, step: int, number: int, of: int) -> None:
        """
        Raises:
            AccessDenied, TryAgain: as Output.create().
            LeaseLost: the lease is not ours any more.
        """
        name = f"checkpoints/step-{step:08d}-epoch-{self._lease.assignment.epoch}.safetensors"
        is_last = number == of
        stored = self._output.create(
            name if is_last else _part_of(name, number), content, "application/octet-stream"
        )
        if is_last:
            self._lease.announce_checkpoint(stored.name)
            log(INFO, "checkpoint written", checkpoint=stored.name, size_bytes=len(content))

    def _content(self, object_name: str) -> bytes:
        # A name outside the prefix is looked for inside it, and so not found.
        found = self._output.find(object_name.removeprefix(self._output.writes.prefix))
        if found is None:
            raise NotFound("it is not there")
        return self._output.read_back(found)


def _part_of(name: str, number: int) -> str:
    return f"{name.removesuffix('.safetensors')}-part-{number}.safetensors"


class Checkpoints:
    """`shelf` is the first rank's."""

    def __init__(
        self, ranks: Ranks, model: Model, optimiser: AdamW, *, shelf: Shelf | None, every: timedelta
    ) -> None:
        self._ranks = ranks
        self._model = model
        self._optimiser = optimiser
        self._shelf = shelf
        self._every_s = every.total_seconds()
        self._saved_at = monotonic()
        self._saved_step = 0

    def resume(self, object_name: str) -> TrainingState | None:
        """
        Take up where the named checkpoint was taken; None if there is none that fits.

        Raises:
            TryAgain: storage was not to be reached.
        """
        found = self._ranks.tell_bytes(self._shelf.find(object_name) if self._shelf else b"")
        if not found:
            return None
        state, cursor = snapshot.load(found, self._model, self._optimiser)
        for number in range(1, cursor.num_parts):
            part = self._shelf.part(object_name, number) if self._shelf else b""
            snapshot.load_part(self._ranks.tell_bytes(part), self._model, self._optimiser)
        if self._shelf:
            self._shelf.take_up(object_name, cursor, state.step)
        self._saved_step = state.step
        return state

    def save_if_due(self, state: TrainingState) -> None:
        is_due = monotonic() - self._saved_at >= self._every_s
        if self._ranks.tell(is_due, bool):
            self.save(state)

    def save_before_end(self, state: TrainingState, *, others_are_there: bool) -> None:
        """As save(), if that can be done, and before a process is killed that was told to end."""
        size_bytes = snapshot.size_of(self._model)
        if size_bytes <= QUICK_BYTES and (others_are_there or not self._model.is_split):
            self.save(state)
        elif self._shelf and state.step != self._saved_step:
            log(WARNING, "no last checkpoint", size_bytes=size_bytes, step=state.step)

    def save(self, state: TrainingState) -> None:
        """
        Write the last finished step's state and tell the broker, unless that is done already.

        Raises:
            AccessDenied, TryAgain, LeaseLost: as Shelf.put().
        """
        if state.step == self._saved_step or not (self._shelf or self._model.is_split):
            return
        began = monotonic()
        corpus = self._shelf.corpus if self._shelf else None
        parts = snapshot.dump(
            self._model,
            self._optimiser,
            state,
            blocks=corpus.blocks if corpus else (),
            tallies=corpus.tallies if corpus else {},
            belongs_to=self._shelf.belongs_to if self._shelf else "",
        )
        for number, part in enumerate(parts, 1):
            if self._shelf:
                self._shelf.put(part.content(), step=state.step, number=number, of=part.of)
        self._saved_at, self._saved_step = monotonic(), state.step
        if snapshot.size_of(self._model) > QUICK_BYTES:
            self._every_s = max(self._every_s, (self._saved_at - began) / MOST_TIME_SHARE)
