"""Rows of a step side by side: the numbers of one after another, and the same bits each time."""

from dataclasses import replace
from threading import Barrier, current_thread, main_thread

import pytest
import torch
from trainer_steps import CPU, GRPO, ONE_CORE, SETTINGS, documents_of, step_of, trained_on
from trainer_world import chat

from sublet.losses import Loss, LossMethod
from sublet.names import ModelName
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.full import FullModel
from sublet_trainer.objectives.methods import objective_for
from sublet_trainer.processes.cores import MAX_AT_ONCE, Cores
from sublet_trainer.processes.ranks import joined
from sublet_trainer.training import rows_at_once

BASE = ModelName.parse("accounts/fireworks/models/tiny-random")
SUPERVISED = None
DPO = Loss(method=LossMethod.DPO)


@pytest.fixture(scope="module")
def cores():
    return Cores(3)


def rows_for(loss):
    if loss is GRPO:
        said = (("yes", 1.0), ("no", 0.0), ("maybe", -0.5))
        return [
            {"samples": [{**chat(f"Is {n}?", one), "evals": {"score": by}} for one, by in said]}
            for n in range(9)
        ]
    if loss is DPO:
        asked, better, worse = (
            {"role": "user", "content": "Is it?"},
            *map(assistant, ("yes", "no")),
        )
        pair = {"input": {"messages": [asked]}}
        return [{**pair, "preferred_output": [better], "non_preferred_output": [worse]}] * 9
    return [chat(f"Is {n} even?", "yes " * (1 + n % 4)) for n in range(20)]


def assistant(content):
    return {"role": "assistant", "content": content}


@pytest.mark.parametrize("loss", [SUPERVISED, GRPO, DPO], ids=["supervised", "grpo", "dpo"])
def test_rows_side_by_side_give_the_step_that_they_give_one_by_one(moved, tokeniser, cores, loss):
    documents = documents_of(tokeniser, rows_for(loss), loss)
    objective = objective_for(loss)
    loss_alone, gradient_alone, metrics_alone = step_of(moved, objective, documents)
    total, gradient, metrics = step_of(moved, objective, documents, capacity=90, cores=cores)
    assert total == pytest.approx(loss_alone, rel=1e-5)
    torch.testing.assert_close(gradient, gradient_alone, rtol=1e-4, atol=1e-5)
    assert metrics == pytest.approx(metrics_alone, rel=1e-4, abs=1e-6)


def test_equal_steps_have_equal_gradients_to_the_bit(moved, tokeniser, cores):
    documents = documents_of(tokeniser, rows_for(SUPERVISED), SUPERVISED)
    objective = objective_for(SUPERVISED)

    def gradient():
        return step_of(moved, objective, documents, capacity=40, cores=cores)[1]

    first = gradient()
    assert all(torch.equal(gradient(), first) for _ in range(5))


def test_a_training_on_several_cores_goes_where_one_on_one_core_goes(folder, tokeniser, cores):
    def curve(cores):
        model = LoraModel(folder, rank=4, seed=0, device=CPU, dtype=torch.float32)
        rows = rows_for(SUPERVISED)
        metrics = trained_on(model, tokeniser, rows, loss=SUPERVISED, cores=cores)
        return [step.loss for step in metrics], model.files(BASE)["adapter_model.safetensors"]

    losses, adapter = curve(cores)
    assert losses == pytest.approx(curve(ONE_CORE)[0], abs=1e-5)
    assert curve(cores)[1] == adapter


def test_they_do_run_at_once_and_come_back_in_order(cores):
    together = Barrier(3, timeout=30)

    def meet(number):
        assert current_thread() is not main_thread()
        together.wait()
        return number

    assert cores.each(meet, [1, 2, 3]) == [1, 2, 3]


def test_each_runs_in_the_grad_mode_of_the_caller(cores):
    with torch.no_grad():
        assert cores.each(lambda _: torch.is_grad_enabled(), range(3)) == [False] * 3
    assert cores.each(lambda _: torch.is_grad_enabled(), range(3)) == [True] * 3


def test_what_one_raises_is_raised_once_all_have_ended(cores):
    ended = []

    def act(number):
        if number == 0:
            raise MemoryError
        torch.randn(300, 300).svd()
        ended.append(number)

    with pytest.raises(MemoryError):
        cores.each(act, range(3))
    assert sorted(ended) == [1, 2]


def test_the_callers_own_threads_stay_as_many_as_they_were(cores):
    before = torch.get_num_threads()
    cores.each(lambda _: None, range(3))
    assert torch.get_num_threads() == before


def test_what_is_dropped_comes_from_one_source_so_rows_run_one_by_one(fresh, folder, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert rows_at_once(fresh, SETTINGS) == MAX_AT_ONCE
    assert rows_at_once(fresh, replace(SETTINGS, lora_dropout=0.1)) == 1
    with joined(None, splits=True):
        full = FullModel(folder, device=CPU, dtype=torch.float32)
        assert rows_at_once(full, SETTINGS) == 1
