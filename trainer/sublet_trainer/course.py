"""
A training from where it stands to its end, the same on every rank: steps, evaluations between them,
checkpoints, and a last one if it has to stop.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sublet_trainer.bench import Bench
from sublet_trainer.checkpoints import Checkpoints
from sublet_trainer.compilation import Compilation
from sublet_trainer.data.corpus import StepDocuments
from sublet_trainer.evaluation import Evaluation
from sublet_trainer.objectives.methods import objective_for
from sublet_trainer.processes.ranks import Ranks
from sublet_trainer.stops import Interrupted, RankLost
from sublet_trainer.training import TrainingState, row_capacity, train

WORTH_A_CHECKPOINT: Final = (Interrupted, RankLost)


def take_course(
    bench: Bench,
    steps: Iterable[StepDocuments],
    state: TrainingState,
    evaluation: Evaluation,
    checkpoints: Checkpoints,
    *,
    ranks: Ranks,
    check: Callable[[], None],
    report: Callable[[], None],
) -> None:
    """
    Args:
        steps: only the first rank looks at them.
        check: raises if this rank must stop.
        report: called after each step.

    Raises:
        Stop: this process must end; there is a checkpoint of the last finished step, if there was
            time to write one.
        SubletError: the training has failed.
    """
    compilation = Compilation(
        bench.model,
        bench.compiler,
        ranks=ranks,
        row_tokens=row_capacity(bench.model.device, bench.order.settings),
        check=check,
    )

    def after_step() -> bool:
        is_enough = evaluation.catch_up(state)
        report()
        checkpoints.save_if_due(state)
        if not is_enough:
            compilation.try_if_worth_it(state)
        return is_enough

    try:
        if not evaluation.catch_up(state):
            train(
                bench.model,
                bench.optimiser,
                steps,
                state,
                bench.order.settings,
                objective_for(bench.order.loss),
                ranks=ranks,
                cores=bench.cores,
                check=check,
                after_step=after_step,
            )
        evaluation.catch_up(state, is_over=True)
    except WORTH_A_CHECKPOINT as stop:
        checkpoints.save_before_end(state, others_are_there=isinstance(stop, Interrupted))
        raise
