"""
Checkpoints in the owner's bucket: one object each, complete or not there, named after step and
lease epoch, so that no two holders write the same one. Nothing is deleted, for the token cannot; a
lifecycle rule on `checkpoints/` does that. The broker remembers which is newest and names it to the
next holder.
"""

from datetime import timedelta
from time import monotonic

import torch

from sublet.errors import AccessDenied, FailedPrecondition, NotFound
from sublet_trainer import snapshot
from sublet_trainer.adapter import LoraModel
from sublet_trainer.corpus import Corpus
from sublet_trainer.lease import HeldLease
from sublet_trainer.logs import INFO, WARNING, log
from sublet_trainer.output import Output
from sublet_trainer.training import TrainingState


class Checkpoints:
    """
    Args:
        belongs_to: digest of everything that must be equal for a checkpoint to fit.
    """

    def __init__(
        self,
        output: Output,
        lease: HeldLease,
        model: LoraModel,
        optimiser: torch.optim.AdamW,
        corpus: Corpus,
        *,
        belongs_to: str,
        every: timedelta,
    ) -> None:
        self._output = output
        self._lease = lease
        self._model = model
        self._optimiser = optimiser
        self._corpus = corpus
        self._belongs_to = belongs_to
        self._every_s = every.total_seconds()
        self._saved_at = monotonic()
        self._saved_step = 0

    def resume(self, object_name: str) -> TrainingState | None:
        """
        Take up where the named checkpoint was taken; None if there is none that fits.

        Raises:
            TryAgain: storage was not to be reached.
        """
        if not object_name:
            return None
        try:
            state, cursor = snapshot.load(
                self._content(object_name),
                self._model,
                self._optimiser,
                belongs_to=self._belongs_to,
            )
        except (NotFound, AccessDenied, FailedPrecondition) as problem:
            # Training again costs time; failing would cost the job.
            log(WARNING, "training begins anew", checkpoint=object_name, because=str(problem))
            return None
        self._corpus.restore(cursor.blocks, cursor.tallies)
        self._saved_step = state.step
        self._lease.announce_checkpoint(object_name)
        log(INFO, "resumed", checkpoint=object_name, step=state.step)
        return state

    def save_if_due(self, state: TrainingState) -> None:
        if monotonic() - self._saved_at >= self._every_s:
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """
        Write the last finished step's state and tell the broker, unless that is done already.

        Raises:
            AccessDenied, TryAgain: as Output.create().
            LeaseLost: the lease is not ours any more.
        """
        if state.step == self._saved_step:
            return
        name = f"checkpoints/step-{state.step:08d}-epoch-{self._lease.assignment.epoch}.safetensors"
        content = snapshot.dump(
            self._model,
            self._optimiser,
            state,
            blocks=self._corpus.blocks,
            tallies=self._corpus.tallies,
            belongs_to=self._belongs_to,
        )
        stored = self._output.create(name, content, "application/octet-stream")
        self._saved_at, self._saved_step = monotonic(), state.step
        self._lease.announce_checkpoint(stored.name)
        log(INFO, "checkpoint written", checkpoint=stored.name, size_bytes=len(content))

    def _content(self, object_name: str) -> bytes:
        # A name outside the prefix is looked for inside it, and so not found.
        found = self._output.find(object_name.removeprefix(self._output.writes.prefix))
        if found is None:
            raise NotFound("it is not there")
        return self._output.read_back(found)
