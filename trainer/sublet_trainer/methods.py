"""Which objective a job's loss stands for."""

from sublet.losses import REINFORCEMENT, Loss
from sublet_trainer.objectives import Objective, Supervised
from sublet_trainer.preference import Preference
from sublet_trainer.reinforcement import Reinforcement


def objective_for(loss: Loss | None) -> Objective:
    """None is supervised fine-tuning's."""
    if loss is None:
        return Supervised()
    return Reinforcement(loss) if loss.method in REINFORCEMENT else Preference(loss)
