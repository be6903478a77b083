"""
The training loop. Decisions, and what they cost:

- A step's loss is divided by the supervised tokens of the whole step, so how documents fall into
  rows changes nothing but memory. Row weights multiply the sum above the line only.
- AdamW on the adapter alone, decay included, gradient norm clipped at 1. The learning rate rises
  linearly over the warm-up and falls, unless told otherwise, along a cosine to a tenth of its peak
  at the last step: a function of the step number, so it needs no state.
- On a CPU each core runs a row of its own; dividing every operation among them halved the speed.
  How many cores there are changes rounding, like how documents fall into rows, and nothing else.
- The same on every rank: each runs its share of a step's documents, and gradients are added up, so
  how many ranks there are changes nothing but time.
- Parameters change in one line. Whatever stops the loop elsewhere leaves the state of the last
  finished step, which is what a checkpoint holds.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import cos, pi
from resource import RUSAGE_SELF, getrusage
from time import monotonic
from typing import Final

import torch
from torch import Tensor

from sublet.jobs import TrainingSettings
from sublet_trainer.data.corpus import START, Position, StepDocuments
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.failures import naming_what_to_lower, verify_finite
from sublet_trainer.models.adamw import AdamW
from sublet_trainer.models.model import Model
from sublet_trainer.models.splitting import whole
from sublet_trainer.objectives.objective import Objective, RowLoss
from sublet_trainer.processes.cores import MAX_AT_ONCE, Cores
from sublet_trainer.processes.ranks import Ranks

MAX_GRAD_NORM: Final = 1.0
ROW_TOKENS: Final = {"cpu": 1024, "cuda": 8192}
"""A row is what runs between two looks at SIGTERM, and what must fit in memory, on a CPU once for
each core. On one core 1024 tokens of SmolLM2 take 2 s forward and 3 s back, of the 10 s that Cloud
Run grants."""
_LOSS: Final = "loss"
SHORT_CONTEXT: Final = 256
"""A row is two contexts at most: lowering max_context_length lowers memory, unless this short."""


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
    cores: Cores,
    check: Callable[[], None],
    after_step: Callable[[], bool],
) -> None:
    """
    Take the steps, which begin at `state.position`, to their end or until `after_step` has enough.

    Args:
        steps: only the first rank looks at them.
        cores: what runs several rows of a step at once.
        check: raises if the run must stop; called between pieces of a step.
        after_step: called when `state` and the parameters are those of a finished step; True ends
            the training.

    Raises:
        InvalidRequest: the loss or its gradient is no number any more.
        OutOfMemory: a row is too long for this machine.
    """
    parameters = list(model.parameters().values())
    capacity = row_capacity(model.device, settings)
    dealt = ranks.deal(steps, divisor=objective.divisor, capacity=capacity, at_once=cores.at_once)
    for share in dealt:
        started = monotonic()
        optimiser.zero_grad()
        model.begin_step(state.step)
        sums: defaultdict[str, float] = defaultdict(float)
        for rows, factors in share.rounds(model.device):
            ranks.agree(check)
            with naming_what_to_lower(rows, settings):
                parts = row_losses(model, objective, rows, capacity=capacity, cores=cores)
                parts = [part * factor for part, factor in zip(parts, factors, strict=True)]
                row_loss = [part.loss / share.divisor for part in parts]
                ranks.agree(check)
                cores.backward(row_loss, parameters)
            # Here a GPU's work is waited for, once a row: what it was given and has not done would
            # stand between SIGTERM and the checkpoint.
            sums[_LOSS] += sum(one.item() for one in row_loss)
            for part in parts:
                for name, number in part.sums.items():
                    sums[name] += float(number)
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


def row_losses(
    model: Model,
    objective: Objective,
    rows: Sequence[PackedRow],
    *,
    capacity: int,
    cores: Cores,
) -> list[RowLoss]:
    """Of each row; what is kept of it for the backward pass is least where one is too long."""
    recomputes = any(row.num_tokens > capacity for row in rows)
    start_logp: list[Tensor] | list[None] = [None] * len(rows)
    if objective.needs_start:
        with model.as_reference():
            start_logp = cores.each(model.log_probs, rows)
    run = partial(objective.row_loss, model, recomputes=recomputes)
    return cores.each(run, rows, start_logp)


def rows_at_once(model: Model, settings: TrainingSettings) -> int:
    """
    One for each core of a CPU, unless they would draw from one source what they drop, or the model
    is put together from its pieces for one row at a time.
    """
    if model.device.type != "cpu" or model.is_split or settings.lora_dropout:
        return 1
    return min(torch.get_num_threads(), MAX_AT_ONCE)


def row_capacity(device: torch.device, settings: TrainingSettings) -> int:
    """Tokens of a row at most, but for a document that is longer."""
    return min(ROW_TOKENS[device.type], 2 * max(settings.max_context_length, SHORT_CONTEXT))


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
