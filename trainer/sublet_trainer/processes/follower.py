"""
A rank that is not the first: what is trained, on what, and when to stop it hears from that one. It
opens nothing, asks nobody and writes nothing.
"""

from datetime import timedelta
from pathlib import Path

from sublet.handover import TrainingOrder
from sublet_trainer.bench import Bench
from sublet_trainer.checkpoints import Checkpoints
from sublet_trainer.course import take_course
from sublet_trainer.evaluation import Evaluation
from sublet_trainer.processes.launch import Rank
from sublet_trainer.processes.ranks import joined
from sublet_trainer.stops import Interruption
from sublet_trainer.training import TrainingState, row_capacity


def follow(rank: Rank, interruption: Interruption, *, models: Path) -> None:
    """
    Raises:
        Dismissed: the first rank has ended, and has said what is to be said.
        Stop: this process must end.
        SubletError: it has failed; the first rank will say so.
    """
    with joined(rank, splits=False) as ranks:
        order = ranks.tell(None, TrainingOrder)
        bench = Bench.set_up(order, ranks, models=models)
        bench.start(b"", ranks)
        checkpoints = Checkpoints(
            ranks, bench.model, bench.optimiser, shelf=None, every=timedelta.max
        )
        state = checkpoints.resume("") or TrainingState(num_steps=ranks.tell(None, int))
        evaluation = Evaluation(
            bench.model,
            [],
            is_wanted=order.evaluation is not None or order.settings.eval_auto_carveout,
            stops_early=order.settings.early_stop,
            capacity=row_capacity(bench.model.device, order.settings),
            ranks=ranks,
            cores=bench.cores,
            check=interruption.check,
        )
        take_course(
            bench,
            [],
            state,
            evaluation,
            checkpoints,
            ranks=ranks,
            check=interruption.check,
            report=lambda: None,
        )
        if bench.model.is_split:
            for _ in bench.model.each_file(order.base_model):
                """Lends its pieces to the first rank, which keeps the file."""
