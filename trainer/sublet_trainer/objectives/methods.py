"""Which objective a job's loss stands for."""

from sublet.losses import REINFORCEMENT, Loss
from sublet_trainer.objectives.objective import Objective, Supervised
from sublet_trainer.objectives.preference import Preference
from sublet_trainer.objectives.reinforcement import Reinforcement


def objective_for(loss: Loss | None) -> Objective:
    """None is supervised fine-tuning's."""
    if loss is None:
        return Supervised()
    return Reinforcement(loss) if loss.method in REINFORCEMENT else Preference(loss)
