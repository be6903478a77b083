"""
The training loop. Decisions, and what they cost:

- A step's loss is divided by the supervised tokens of the whole step, so how documents fall into
  rows changes nothing but memory. Row weights multiply the sum above the line only.
- AdamW on the adapter alone, decay included, gradient norm clipped at 1. The learning rate rises
  linearly over the warm-up and falls, unless told otherwise, along a cosine to a tenth of its peak
  at the last step: a function of the step number, so it needs no state.
- The same on every rank: each runs its share of a step's documents, and gradients are added up, so
  how many ranks there are changes nothing but time.
- Parameters change in one line. Whatever stops the loop elsewhere leaves the state of the last
  finished step, which is what a checkpoint holds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import cos, pi
from resource import RUSAGE_SELF, getrusage
from time import monotonic
from typing import Final

import torch
from torch import Tensor

from sublet.jobs import TrainingSettings
from sublet_trainer.data.corpus import START, Position, StepDocuments
from sublet_trainer.failures import naming_what_to_lower, verify_finite
from sublet_trainer.models.adamw import AdamW
from sublet_trainer.models.model import Model
from sublet_trainer.models.splitting import whole
from sublet_trainer.objectives.objective import Objective
from sublet_trainer.processes.ranks import Ranks

MAX_GRAD_NORM: Final = 1.0
ROW_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
"""A row is what runs between two looks at SIGTERM, and what must fit in memory. On two cores 1024
tokens of SmolLM2 take 4 s forward and back, of the 10 s that Cloud Run grants."""
_LOSS: Final = "loss"
SHORT_ROW: Final = 512
"""Rows are not longer than max_context_length, so lowering it lowers memory, unless this short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """
    `loss` is the objective's, for a supervised one in nats per supervised token; `grad_norm` is
    before clipping; `extra` is what else the objective tells of the step. Memory is the device's,
    or the process's on a CPU, since it began.
    """

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_s: float
    extra: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalMetrics:
    """`eval_loss` is the mean over all supervised tokens that are held back, in nats."""

    step: int
    epoch: float
    eval_loss: float


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """All that grows while training, beside the parameters and what AdamW keeps of them."""

    num_steps: int
    position: Position = START
    num_tokens: int = 0
    num_supervised: int = 0
    metrics: list[StepMetrics] = field(default_factory=list)
    evaluations: list[EvalMetrics] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The adapter of the best evaluation, where training may stop early."""
    seconds: float = 0.0
    """What the steps took, evaluations and checkpoints between them included."""

    @property
    def step(self) -> int:
        return len(self.metrics)


def new_optimiser(model: Model, settings: TrainingSettings) -> AdamW:
    return AdamW(model.parameters(), weight_decay=settings.weight_decay)


def train(
    model: Model,
    optimiser: AdamW,
    steps: Iterable[StepDocuments],
    state: TrainingState,
    settings: TrainingSettings,
    objective: Objective,
    *,
    ranks: Ranks,
    check: Callable[[], None],
    after_step: Callable[[], bool],
) -> None:
    """
    Take the steps, which begin at `state.position`, to their end or until `after_step` has enough.

    Args:
        steps: only the first rank looks at them.
        check: raises if the run must stop; called between pieces of a step.
        after_step: called when `state` and the parameters are those of a finished step; True ends
            the training.

    Raises:
        InvalidRequest: the loss or its gradient is no number any more.
        OutOfMemory: a row is too long for this machine.
    """
    parameters = list(model.parameters().values())
    capacity = row_capacity(model.device, settings)
    for share in ranks.deal(steps, divisor=objective.divisor, capacity=capacity):
        started = monotonic()
        optimiser.zero_grad()
        model.begin_step(state.step)
        sums: defaultdict[str, float] = defaultdict(float)
        for row, counts in share.rows(capacity, model.device):
            ranks.agree(check)
            with naming_what_to_lower(row, settings):
                part = objective.row_loss(model, row, recomputes=row.num_tokens > capacity)
                row_loss = part.loss * counts / share.divisor
                ranks.agree(check)
                torch.autograd.backward(row_loss)
            sums[_LOSS] += row_loss.item()
            for name, number in part.sums.items():
                sums[name] += counts * number
        ranks.agree(check)
        ranks.add_gradients(parameters)
        totals = ranks.total(sums)
        loss = totals.pop(_LOSS)
        grad_norm = whole(torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)).item()
        verify_finite(loss, grad_norm, state.step + 1, share.lines)
        extra = objective.metrics(totals, num_examples=len(share.lines))
        lr = learning_rate(state.step, state.num_steps, settings)
        optimiser.step(lr)

        state.position = share.following
        state.num_tokens += share.num_tokens
        state.num_supervised += share.num_supervised
        state.metrics.append(
            StepMetrics(
                step=state.step + 1,
                epoch=share.epoch,
                loss=loss,
                learning_rate=lr,
                grad_norm=grad_norm,
                tokens_per_s=share.num_tokens / (monotonic() - started),
                extra=extra,
                peak_memory_bytes=peak_memory(model.device),
            )
        )
        if after_step():
            break


def row_capacity(device: torch.device, settings: TrainingSettings) -> int:
    """Tokens of a row at most, but for a document that is longer."""
    return min(ROW_TOKENS[device.type], max(settings.max_context_length, SHORT_ROW))


def learning_rate(step: int, num_steps: int, settings: TrainingSettings) -> float:
    """
    The rate of the step after `step` finished ones: (step + 1) / warm-up of the peak while that is
    below 1, then the schedule from the peak to its lowest share; constant after `num_steps`, which
    for large datasets is an estimate.
    """
    peak, num_warmup = settings.learning_rate, settings.learning_rate_warmup_steps
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    done = min(1.0, (step - num_warmup) / max(1, num_steps - 1 - num_warmup))
    height = _HEIGHT_OF[settings.learning_rate_scheduler](done)
    lowest = settings.learning_rate_min_lr_ratio
    return peak * (lowest + (1 - lowest) * height)


_HEIGHT_OF: Final[Mapping[str, Callable[[float], float]]] = {
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
    "linear": lambda done: 1 - done,
    "constant": lambda _: 1.0,
}


def peak_memory(device: torch.device) -> int:
    """Bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
