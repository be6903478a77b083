"""
Evaluation: the mean loss over documents that are never trained on, before the first step and after
each epoch. Which evaluations are due follows from the state alone, so a resumed training makes
those that an undisturbed one makes.

A training that may stop early ends after an epoch whose loss is not below the best of the epochs
before it (a patience of one epoch), and hands over the adapter of the best epoch, which a
checkpoint keeps beside the newest one. The evaluation before the first step only shows where the
training came from.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from sublet.errors import InvalidRequest
from sublet_trainer.data.corpus import START, StepDocuments
from sublet_trainer.data.documents import Document
from sublet_trainer.models.model import Model
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.processes.cores import Cores
from sublet_trainer.processes.ranks import Ranks
from sublet_trainer.training import EvalMetrics, TrainingState

_LOSS: Final = "loss"


class Evaluation:
    """
    Args:
        documents: in the first rank; in the others there are none.
        capacity: tokens of a row at most, but for a document that is longer.
        check: raises if the run must stop; called between rows.
    """

    def __init__(
        self,
        model: Model,
        documents: Sequence[Document],
        *,
        is_wanted: bool,
        stops_early: bool,
        capacity: int,
        ranks: Ranks,
        cores: Cores,
        check: Callable[[], None],
    ) -> None:
        self._model = model
        self._documents = documents
        self._is_wanted = is_wanted
        self._stops_early = stops_early
        self._capacity = capacity
        self._ranks = ranks
        self._cores = cores
        self._check = check

    @property
    def num_documents(self) -> int:
        return len(self._documents)

    def catch_up(self, state: TrainingState, *, is_over: bool = False) -> bool:
        """Evaluate if an epoch has ended since the last time; True if training should stop."""
        num_epochs = int(state.metrics[-1].epoch) if state.metrics else 0
        is_late = is_over and state.evaluations and state.evaluations[-1].step < state.step
        if self._is_wanted and (num_epochs >= len(state.evaluations) or is_late):
            self._evaluate(state)
        return self._stops_early and not self._still_improves(state)

    def take_best(self, state: TrainingState) -> int:
        """Put the adapter back that is to be handed over; return the step that it is of."""
        if not state.best:
            return state.step
        self._model.put(state.best)
        return best_of(state.evaluations).step

    def _evaluate(self, state: TrainingState) -> None:
        last = state.metrics[-1] if state.metrics else None
        made = EvalMetrics(
            step=state.step, epoch=last.epoch if last else 0.0, eval_loss=self._mean_loss()
        )
        state.evaluations.append(made)
        if self._stops_early and last and best_of(state.evaluations) is made:
            state.best = self._model.copied()

    def _mean_loss(self) -> float:
        objective, ranks = Supervised(), self._ranks
        run = partial(objective.row_loss, self._model, recomputes=False)
        whole = [StepDocuments([*self._documents], START, 0.0)]
        total = 0.0
        with self._model.evaluating():
            dealt = ranks.deal(
                whole,
                divisor=objective.divisor,
                capacity=self._capacity,
                at_once=self._cores.at_once,
            )
            for share in dealt:
                for rows, factors in share.rounds(self._model.device):
                    ranks.agree(self._check)
                    parts = self._cores.each(run, rows)
                    for part, by in zip(parts, factors, strict=True):
                        total += by * part.loss.item() / share.divisor
        return ranks.total({_LOSS: total})[_LOSS]

    def _still_improves(self, state: TrainingState) -> bool:
        of_epochs = state.evaluations[1:]
        return not of_epochs or best_of(state.evaluations) is of_epochs[-1]


def best_of(evaluations: Sequence[EvalMetrics]) -> EvalMetrics:
    """The lowest loss after an epoch, the earlier one of equals."""
    return min(evaluations[1:], key=lambda one: one.eval_loss)


def verify_usable(documents: Sequence[Document], *, of: str) -> None:
    """
    Raises:
        InvalidRequest: nothing of it can be evaluated.
    """
    if not documents:
        raise InvalidRequest(f"{of}: no row has a token to predict; expected some to evaluate on")
