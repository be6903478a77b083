"""
The training loop. Decisions, and what they cost:

- A step's loss is divided by the supervised tokens of the whole step, so how documents fall into
  rows changes nothing but memory. Row weights multiply the sum above the line only.
- AdamW on the adapter alone, decay included, gradient norm clipped at 1. The learning rate rises
  linearly over the warm-up and falls along a cosine to a tenth of its peak at the last step: a
  function of the step number, so it needs no state.
- Parameters change in one line. Whatever stops the loop elsewhere leaves the state of the last
  finished step, which is what a checkpoint holds.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, pi
from time import monotonic
from typing import Final

import torch

from sublet.jobs import TrainingSettings
from sublet_trainer.adapter import LoraModel
from sublet_trainer.corpus import START, Corpus, Position
from sublet_trainer.failures import naming_what_to_lower, verify_finite
from sublet_trainer.objectives import Objective
from sublet_trainer.packing import pack

MAX_GRAD_NORM: Final = 1.0
LAST_LR_SHARE: Final = 0.1
ROW_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
"""A row is what runs between two looks at SIGTERM, and what must fit in memory. On two cores 1024
tokens of SmolLM2 take 4 s forward and back, of the 10 s that Cloud Run grants."""
SHORT_ROW: Final = 512
"""Rows are not longer than max_context_length, so lowering it lowers memory, unless this short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """`loss` is in nats per supervised token; `grad_norm` is before clipping."""

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """All that grows while training, beside the parameters and what AdamW keeps of them."""

    num_steps: int
    position: Position = START
    num_tokens: int = 0
    num_supervised: int = 0
    metrics: list[StepMetrics] = field(default_factory=list)

    @property
    def step(self) -> int:
        return len(self.metrics)


def new_optimiser(model: LoraModel, settings: TrainingSettings) -> torch.optim.AdamW:
    parameters = list(model.parameters().values())
    return torch.optim.AdamW(
        parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )


def train(
    model: LoraModel,
    optimiser: torch.optim.AdamW,
    corpus: Corpus,
    state: TrainingState,
    settings: TrainingSettings,
    objective: Objective,
    *,
    check: Callable[[], None],
    after_step: Callable[[], None],
) -> None:
    """
    Train from `state.position` to the end of the last epoch.

    Args:
        check: raises if the run must stop; called between pieces of a step.
        after_step: called when `state` and the parameters are those of a finished step.

    Raises:
        InvalidRequest: the loss or its gradient is no number any more.
        OutOfMemory: a row is too long for this machine.
    """
    parameters = list(model.parameters().values())
    capacity = min(ROW_TOKENS[model.device.type], max(settings.max_context_length, SHORT_ROW))
    for batch in corpus.steps(state.position):
        started = monotonic()
        rows = pack(batch.documents, capacity=capacity, device=model.device)
        num_tokens = sum(row.num_tokens for row in rows)
        divisor = objective.divisor(batch.documents)
        optimiser.zero_grad()
        loss = 0.0
        for row in rows:
            check()
            with naming_what_to_lower(row, settings):
                recomputes = row.num_tokens > capacity
                row_loss = objective.loss_sum(model, row, recomputes=recomputes) / divisor
                check()
                torch.autograd.backward(row_loss)
            loss += row_loss.item()
        check()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM).item()
        verify_finite(loss, grad_norm, state.step + 1, batch.documents)
        lr = learning_rate(state.step, state.num_steps, settings)
        optimiser.param_groups[0]["lr"] = lr
        optimiser.step()

        state.position = batch.following
        state.num_tokens += num_tokens
        state.num_supervised += sum(row.num_supervised for row in rows)
        state.metrics.append(
            StepMetrics(
                step=state.step + 1,
                epoch=batch.epoch,
                loss=loss,
                learning_rate=lr,
                grad_norm=grad_norm,
                tokens_per_s=num_tokens / (monotonic() - started),
            )
        )
        after_step()
    corpus.check_has_steps(state.step)


def learning_rate(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """
    The rate of the step after `step` finished ones: (step + 1) / warm-up of the peak while that is
    below 1, then half a cosine from the peak to LAST_LR_SHARE of it; constant after `num_steps`,
    which for large datasets is an estimate.
    """
    peak, num_warmup = settings.learning_rate, settings.learning_rate_warmup_steps
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    done = min(1.0, (step - num_warmup) / max(1, num_steps - 1 - num_warmup))
    return peak * (LAST_LR_SHARE + (1 - LAST_LR_SHARE) * (1 + cos(pi * done)) / 2)
