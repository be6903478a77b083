"""Layers are compiled where that is faster and comes to the same; nothing else changes by it."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from subprocess import PIPE
from threading import Event

import pytest
import torch
from torch._dynamo.utils import counters
from trainer_steps import CPU, ONE_CORE, SETTINGS, corpus_of, gradient_of, take_steps
from trainer_world import chat

from sublet.handover import Claim
from sublet_trainer.bench import Bench
from sublet_trainer.checkpoints import Checkpoints
from sublet_trainer.compilation import (
    LOOKS_EVERY_S,
    STEPS_BEFORE,
    WORTH_TRYING_S,
    Compilation,
    made_up_row,
    seconds_left,
    while_checking,
)
from sublet_trainer.course import take_course
from sublet_trainer.data.corpus import START
from sublet_trainer.evaluation import Evaluation
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.compiler import TorchCompiler
from sublet_trainer.objectives.objective import Supervised
from sublet_trainer.processes.ranks import Alone
from sublet_trainer.stops import Interrupted, Interruption
from sublet_trainer.training import TrainingState, new_optimiser

ROWS = [chat(f"Is {n} even?", "It is. " * (1 + n % 3)) for n in range(8)]
SHORT_STEPS = replace(SETTINGS, batch_size=60, epochs=1, learning_rate_scheduler="constant")


class Clock:
    """A second passes each time that it is looked at; what is measured may change that."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


class Compiled:
    """A compiler whose programs take so many seconds more or less than what was written."""

    def __init__(self, clock, *, seconds, spoilt=lambda output: output):
        self.num_calls, self.is_settled = 0, False
        self._clock, self._seconds, self._spoilt = clock, seconds, spoilt

    def __call__(self, written):
        def program(layer, *tensors):
            self.num_calls += 1
            self._clock.now += self._seconds
            made = written(layer, *tensors)
            return made if isinstance(made, tuple) else self._spoilt(made)

        return program

    def settle(self):
        self.is_settled = True


@pytest.fixture
def clock():
    return Clock()


def trained(model, tokeniser, compiler, clock, *, num_steps=10**9, ranks=None):
    """A training that would go on for days; the metrics of the steps that there are."""
    corpus = corpus_of(tokeniser, ROWS, None, SHORT_STEPS)
    corpus.survey(num_rows_registered=0)
    state = TrainingState(num_steps=num_steps)
    ranks = ranks or Alone()
    compilation = Compilation(
        model, compiler, ranks=ranks, row_tokens=50, check=lambda: None, clock=clock
    )
    take_steps(
        model,
        new_optimiser(model, SHORT_STEPS),
        corpus,
        state,
        SHORT_STEPS,
        Supervised(),
        ranks=ranks,
        after_step=lambda: compilation.try_if_worth_it(state),
    )
    assert len(state.metrics) > STEPS_BEFORE + 1
    return state.metrics


def said(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# --- whether it is kept ---------------------------------------------------------------------------


def test_what_is_faster_and_comes_to_the_same_is_kept(moved, tokeniser, clock, capsys):
    compiler = Compiled(clock, seconds=-0.1)
    trained(moved, tokeniser, compiler, clock)
    assert moved.is_compiled
    assert compiler.is_settled
    (line,) = said(capsys)
    assert line["message"] == "layers are compiled"
    assert line["compiled_ms"] < line["as_written_ms"] == 1000
    assert line["gradients_apart"] == 0
    assert line["row_tokens"] <= 50


@pytest.mark.parametrize("seconds", [0.1, 0, -0.01])
def test_what_is_slower_or_hardly_faster_is_not_kept(moved, tokeniser, clock, capsys, seconds):
    compiler = Compiled(clock, seconds=seconds)
    trained(moved, tokeniser, compiler, clock)
    assert not moved.is_compiled
    assert not compiler.is_settled
    assert [line["message"] for line in said(capsys)] == ["layers stay as they are written"]


def test_what_comes_to_something_else_is_not_kept_however_fast(moved, tokeniser, clock, capsys):
    trained(
        moved,
        tokeniser,
        Compiled(clock, seconds=-0.1, spoilt=lambda output: output.flip(0)),
        clock,
    )
    assert not moved.is_compiled
    (line,) = said(capsys)
    assert line["gradients_apart"] > 0.2


def test_what_comes_to_no_number_is_not_kept(moved, tokeniser, clock):
    trained(
        moved,
        tokeniser,
        Compiled(clock, seconds=-0.1, spoilt=lambda output: output * torch.nan),
        clock,
    )
    assert not moved.is_compiled


def test_a_compiler_that_fails_costs_nothing_but_speed(moved, tokeniser, clock, capsys):
    def fails(written):
        raise RuntimeError("Failed to find C compiler.\nSee above")

    metrics = trained(moved, tokeniser, fails, clock)
    assert not moved.is_compiled
    assert [one.step for one in metrics] == list(range(1, len(metrics) + 1))
    (line,) = said(capsys)
    assert line["severity"] == "WARNING"
    assert line["because"] == "RuntimeError: Failed to find C compiler."


def test_a_trial_changes_neither_what_is_trained_nor_how_it_goes_on(folder, tokeniser, clock):
    def curve(compiler):
        model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
        return [(one.loss, one.grad_norm) for one in trained(model, tokeniser, compiler, clock)]

    assert curve(Compiled(clock, seconds=0.1)) == curve(None)


def test_no_rank_compiles_what_is_slower_on_another(moved, tokeniser, clock):
    class BesideASlowerOne(Alone):
        def total(self, numbers):
            return {name: number + (name == "lost") for name, number in numbers.items()}

    trained(moved, tokeniser, Compiled(clock, seconds=-0.1), clock, ranks=BesideASlowerOne())
    assert not moved.is_compiled


# --- whether it is tried --------------------------------------------------------------------------


def test_it_is_not_tried_where_too_little_is_left_to_pay_for_it(moved, tokeniser, clock, capsys):
    compiler = Compiled(clock, seconds=-0.1)
    trained(moved, tokeniser, compiler, clock, num_steps=20)
    assert compiler.num_calls == 0
    assert said(capsys) == []


def test_what_is_left_is_told_by_the_pace_of_the_last_step(moved, tokeniser, clock):
    (*_, last) = trained(moved, tokeniser, None, clock)
    state = TrainingState(num_steps=100, num_tokens=2000, metrics=[replace(last, tokens_per_s=50)])
    state.metrics *= 20
    assert seconds_left(state) == 80 * 100 / 50
    assert seconds_left(state) < WORTH_TRYING_S


def test_with_dropout_it_is_not_tried(folder, tokeniser, clock):
    """A compiled layer would draw otherwise than the checkpoint's."""
    model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32, dropout=0.1)
    compiler = Compiled(clock, seconds=-0.1)
    trained(model, tokeniser, compiler, clock)
    assert not model.is_compiled
    assert compiler.num_calls == 0


@pytest.fixture
def bench(world, models):
    world.settings = SHORT_STEPS
    order = world.claim(Claim(execution="execution-1")).training
    return Bench.set_up(order, Alone(), models=models)


def test_it_is_tried_in_the_course_of_a_training(bench, tokeniser, clock, capsys):
    compiler = Compiled(clock, seconds=0)
    bench = replace(bench, compiler=compiler)
    corpus = corpus_of(tokeniser, ROWS, None, SHORT_STEPS)
    corpus.survey(num_rows_registered=0)
    evaluation = Evaluation(
        bench.model,
        [],
        is_wanted=False,
        stops_early=False,
        capacity=50,
        ranks=Alone(),
        cores=ONE_CORE,
        check=lambda: None,
    )
    take_course(
        bench,
        corpus.steps(START),
        TrainingState(num_steps=10**9),
        evaluation,
        Checkpoints(Alone(), bench.model, bench.optimiser, shelf=None, every=timedelta.max),
        ranks=Alone(),
        check=lambda: None,
        report=lambda: None,
    )
    assert compiler.num_calls > 0
    assert [line["gradients_apart"] for line in said(capsys)] == [0]


def test_on_a_cpu_it_is_never_tried(bench):
    assert bench.compiler is None


@pytest.mark.parametrize("num_tokens", [1, 2, 511, 512, 513, 1025, 8192])
def test_the_row_that_is_made_up_is_as_long_as_one_of_the_training(num_tokens):
    row = made_up_row(num_tokens, device=CPU)
    assert num_tokens - row.num_documents <= row.num_tokens <= num_tokens
    assert row.num_tokens // 3 < len(row.targets_S) <= row.num_tokens


# --- while it is tried ----------------------------------------------------------------------------


def test_sigterm_is_heard_while_a_compiler_works():
    interruption, is_compiling, may_end = Interruption(), Event(), Event()

    def compiling():
        is_compiling.set()
        interruption.request()
        may_end.wait(60)

    with pytest.raises(Interrupted):
        while_checking(interruption.check, compiling, device=CPU)
    assert is_compiling.is_set()
    assert LOOKS_EVERY_S < 1  # of the 10 s between SIGTERM and SIGKILL
    may_end.set()


LEFT_AT_WORK = """
import threading, torch
from sublet_trainer.__main__ import end
class Written(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.clone()
    @staticmethod
    def backward(ctx, grad): return grad.clone()
is_at_work = threading.Event()
def work():
    x = torch.ones(1000, requires_grad=True)
    while True:
        Written.apply(x).sum().backward()
        is_at_work.set()
threading.Thread(target=work, daemon=True).start()
is_at_work.wait()
print("a last word")
end(143)
"""


def test_a_process_that_leaves_a_thread_at_work_ends_with_its_code_all_the_same():
    """The interpreter's own ending unwinds it in the middle of torch, and aborts: 134."""
    ended = subprocess.run([sys.executable, "-c", LEFT_AT_WORK], stdout=PIPE, check=False)
    assert (ended.returncode, ended.stdout) == (143, b"a last word\n")


def test_what_it_raises_is_raised_here():
    def fails():
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        while_checking(lambda: None, fails, device=CPU)


# --- the compiler ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchs_own_compiler_makes_one_program_for_every_length_and_thread(
    moved, tmp_path, monkeypatch
):
    """And for every layer: test_llama.py, which says also that it comes to the same."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    rows = [made_up_row(length, device=CPU) for length in (40, 41, 700, 7)]
    written = [gradient_of(moved, row) for row in rows]
    torch._dynamo.reset()
    counters.clear()
    moved.compile_layers(TorchCompiler())
    compiled = [while_checking(lambda: None, lambda: gradient_of(moved, rows[0]), device=CPU)]
    compiled += [gradient_of(moved, row) for row in rows[1:]]
    assert counters["stats"]["unique_graphs"] == 2
    for expected, found in zip(written, compiled, strict=True):
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_once_settled_what_would_need_another_program_is_computed_as_it_is_written(moved):
    """A row of one token would, for torch; and it would take a minute, deaf to SIGTERM."""
    row, usual = made_up_row(1, device=CPU), made_up_row(40, device=CPU)
    written = gradient_of(moved, row)
    torch._dynamo.reset()
    compiler = TorchCompiler("aot_eager")
    moved.compile_layers(compiler)
    gradient_of(moved, usual)
    counters.clear()
    try:
        compiler.settle()
        assert torch.equal(gradient_of(moved, row), written)
        assert "unique_graphs" not in counters["stats"]
    finally:
        torch.compiler.set_stance("default")
