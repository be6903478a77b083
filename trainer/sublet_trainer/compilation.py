"""
Whether a model's layers are compiled. Between the products of a layer and its attention lie dozens
of small operations, of which torch.compile makes a few; what that gains depends on the GPU, the
model and the length of its rows, and it costs a minute. So it is tried where the training runs,
once in a process, between two steps, if enough is left of the training to pay for it, on a row that
is made up. It is kept if the row's gradient is the same but for rounding, and was there sooner.

On a CPU the products are nearly all of the time, so there it is not tried (docs/adr/0026).
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import median
from threading import Thread
from time import monotonic
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import PackedRow, pack
from sublet_trainer.logs import INFO, WARNING, log
from sublet_trainer.models.compiler import Compiler
from sublet_trainer.models.model import Model
from sublet_trainer.processes.ranks import Ranks
from sublet_trainer.training import TrainingState

T = TypeVar("T")

WORTH_TRYING_S: Final = 15 * 60.0
"""A tenth less of so long is more than what the compiler takes."""
STEPS_BEFORE: Final = 3
"""Of which the first has warmed up, and the last says how long the others will take."""
WINS_AT: Final = 0.97
"""Of the time that it takes as written; less of a gain is the clock's noise."""
MOST_APART: Final = 0.2
"""Relative to the gradient's norm: of SmolLM2 in bf16 they were 0.05 apart, on a CPU, and either of
them 0.04 from the gradient in fp32."""
TIMES: Final = 5
LOOKS_EVERY_S: Final = 0.1
_DOCUMENT_TOKENS: Final = 512
_IDS: Final = 100
"""The first of these every vocabulary has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """
    Seconds of one row, forward and back, and `apart`, the distance of the gradients relative to
    their norm.
    """

    as_written_s: float
    compiled_s: float
    compiling_s: float
    apart: float

    @property
    def is_won(self) -> bool:
        return self.compiled_s < WINS_AT * self.as_written_s and self.apart < MOST_APART


class Compilation:
    """
    Args:
        compiler: None where layers stay as they are written.
        row_tokens: of a row at most, as the training packs them.
        check: raises if this process must stop.
    """

    def __init__(
        self,
        model: Model,
        compiler: Compiler | None,
        *,
        ranks: Ranks,
        row_tokens: int,
        check: Callable[[], None],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._model = model
        self._compiler = compiler
        self._ranks = ranks
        self._row_tokens = row_tokens
        self._check = check
        self._clock = clock
        self._steps_before = STEPS_BEFORE

    def try_if_worth_it(self, state: TrainingState) -> None:
        """Called after each step by every rank, which all do the same."""
        self._steps_before -= 1
        if self._compiler is None or not self._model.is_compilable or self._steps_before:
            return
        if self._ranks.tell(seconds_left(state) > WORTH_TRYING_S, bool):
            self._try(self._compiler, state)

    def _try(self, compiler: Compiler, state: TrainingState) -> None:
        num_tokens = min(self._row_tokens, state.num_tokens // state.step)
        row = made_up_row(num_tokens, device=self._model.device)
        act = partial(tried_or_not, self._model, row, compiler, clock=self._clock)
        device = self._model.device
        trial = self._ranks.agree(partial(while_checking, self._check, act, device=device))
        is_won = trial is not None and trial.is_won
        lost = self._ranks.total({"lost": not is_won})["lost"]
        if lost:
            self._model.compile_layers(None)
        else:
            compiler.settle()  # what is made later would be made where SIGTERM is not heard
        if trial and self._ranks.is_first:
            log(
                INFO,
                "layers stay as they are written" if lost else "layers are compiled",
                as_written_ms=round(1000 * trial.as_written_s, 1),
                compiled_ms=round(1000 * trial.compiled_s, 1),
                compiling_s=round(trial.compiling_s, 1),
                gradients_apart=round(trial.apart, 4),
                row_tokens=row.num_tokens,
            )


def seconds_left(state: TrainingState) -> float:
    """At the pace of the last step."""
    num_tokens_left = (state.num_steps - state.step) * state.num_tokens / state.step
    return num_tokens_left / state.metrics[-1].tokens_per_s


def made_up_row(num_tokens: int, *, device: torch.device) -> PackedRow:
    """Of documents of the usual length, every second token supervised."""
    num_tokens = max(2, num_tokens)
    ids = np.random.default_rng(0).integers(_IDS, size=num_tokens, dtype=np.int32)
    documents = [
        Document(ids_T, np.arange(len(ids_T), 0, -1) % 2 == 1, weight=1.0, is_truncated=False)
        for ids_T in np.array_split(ids, ceil(num_tokens / _DOCUMENT_TOKENS))
    ]
    (row,) = pack(documents, capacity=num_tokens, device=device)
    return row


def tried_or_not(
    model: Model, row: PackedRow, compiler: Compiler, *, clock: Callable[[], float] = monotonic
) -> Trial | None:
    """None, with the reason in the log, if this machine compiles nothing."""
    try:
        return tried(model, row, compiler, clock)
    except Exception as problem:  # noqa: BLE001  it costs speed, not the training; the row is made up
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        log(WARNING, "layers stay as they are written", because=reason[:300])
        return None


def tried(model: Model, row: PackedRow, compiler: Compiler, clock: Callable[[], float]) -> Trial:
    """
    Leaves the layers compiled.

    Raises:
        Exception: whatever a compiler, its own compilers and the memory of a GPU fail with.
    """
    _gradient(model, row)  # its length is new
    written, as_written_s = _timed(model, row, clock)
    model.compile_layers(compiler)
    began = clock()
    _gradient(model, row)
    compiling_s = clock() - began
    compiled, compiled_s = _timed(model, row, clock)
    return Trial(
        as_written_s=as_written_s,
        compiled_s=compiled_s,
        compiling_s=compiling_s,
        apart=float((compiled - written).norm() / written.norm()),
    )


def _timed(model: Model, row: PackedRow, clock: Callable[[], float]) -> tuple[Tensor, float]:
    """The gradient, and the median of the seconds until it is there."""
    seconds = []
    for _ in range(TIMES):
        began = clock()
        gradient = _gradient(model, row)
        gradient.norm().item()  # a GPU has done all that leads there
        seconds.append(clock() - began)
    return gradient, median(seconds)


def _gradient(model: Model, row: PackedRow) -> Tensor:
    loss = -model.log_probs(row).mean()
    gradients = torch.autograd.grad(loss, [*model.parameters().values()])
    return torch.cat([one.flatten() for one in gradients])


def while_checking(check: Callable[[], None], act: Callable[[], T], *, device: torch.device) -> T:
    """
    What takes a minute and cannot be left, in a thread that can: if `check` raises, the process is
    about to end, and the thread with it.
    """
    done: Future[T] = Future()
    num_threads = torch.get_num_threads()

    def run() -> None:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Each thread has its own; a program is made again where the number is another.
        torch.set_num_threads(num_threads)
        try:
            done.set_result(act())
        except BaseException as problem:  # noqa: BLE001  it is raised where it is waited for
            done.set_exception(problem)

    Thread(target=run, name="trial", daemon=True).start()
    while not wait([done], timeout=LOOKS_EVERY_S).done:
        check()
    return done.result()
