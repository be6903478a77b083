"""What is held back from training is never trained on, and tells how well it goes."""

import json
from dataclasses import replace
from itertools import count

import pytest
from trainer_world import PREFIX, ROWS, Fault, chat, jsonl

from sublet_trainer.results import metrics
from sublet_trainer.stops import Interruption

HELD_BACK = [chat(f"What is {n} and {n}?", f"It is {2 * n}.") for n in range(30, 36)]


def lines_of(world, epoch=1):
    return [json.loads(line) for line in world.content(f"epoch-{epoch}/metrics.jsonl").splitlines()]


def evaluations_of(world, epoch=1):
    return [line for line in lines_of(world, epoch) if "eval_loss" in line]


@pytest.fixture
def carving(world):
    world.settings = replace(world.settings, eval_auto_carveout=True, epochs=3)
    return world


def test_rows_are_held_out_and_evaluated_before_the_first_step_and_after_each_epoch(carving):
    assert carving.train() == 0
    evaluations = evaluations_of(carving)
    assert [one["epoch"] for one in evaluations] == [0, 1, 2, 3]
    assert evaluations[-1]["eval_loss"] < evaluations[0]["eval_loss"] - 0.5
    said = carving.manifest["evaluated"]
    assert (said["num_documents"], said["object"]) == (2, None)  # a tenth of 24
    assert carving.heartbeats[-1].progress.eval_loss == evaluations[-1]["eval_loss"]


def test_too_few_rows_to_hold_any_out_fail_the_job_in_words(carving):
    carving.put("in/rows.jsonl", jsonl([chat("a", "b")]))
    assert carving.train() == 0
    (ending,) = carving.endings
    assert ending.code == "INVALID_ARGUMENT"
    assert "has 1 rows to learn from; to hold some out" in ending.message


def test_another_object_is_evaluated_on_and_its_bytes_are_counted(world):
    world.put("in/held-back.jsonl", jsonl(HELD_BACK))
    world.evaluation = world.pinned("in/held-back.jsonl")
    assert world.train() == 0
    said = world.manifest["evaluated"]
    assert said["num_documents"] == len(HELD_BACK)
    assert said["object"]["object"] == "in/held-back.jsonl"
    (ending,) = world.endings
    assert ending.bytes_read == world.size_bytes + world.evaluation.size_bytes


@pytest.fixture
def worsening(new_world, models):
    """Whoever learns these rows by heart knows those held back less and less: a world of such."""

    def make(**settings):
        world = new_world(models)
        contrary = [chat(row["messages"][0]["content"], "Never. " * 3) for row in ROWS]
        world.put("in/held-back.jsonl", jsonl(contrary))
        world.evaluation = world.pinned("in/held-back.jsonl")
        world.settings = replace(world.settings, **settings)
        return world

    return make


def test_a_training_that_gets_worse_stops_early_and_hands_over_its_best_adapter(worsening):
    world = worsening(epochs=8, early_stop=True)
    assert world.train() == 0
    losses = [one["eval_loss"] for one in evaluations_of(world)][1:]
    assert 1 < len(losses) < 8
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    assert losses[-1] >= losses[-2]
    trained = world.manifest["trained"]
    assert trained["adapter_of_step"] == evaluations_of(world)[-2]["step"] < trained["steps"]
    assert world.endings[0].is_success

    further = worsening(epochs=1)
    further.put("old/adapter_model.safetensors", world.adapter())
    further.starts_from = further.pinned("old/adapter_model.safetensors")
    assert further.train() == 0
    handed_over = evaluations_of(further)[0]["eval_loss"]
    assert handed_over == pytest.approx(min(losses), rel=1e-6)


def test_interrupted_after_every_step_it_evaluates_and_ends_as_if_it_had_not_been(worsening):
    """With dropout, early stop and the best adapter so far, all of which must outlive a stop."""
    settings = {"epochs": 6, "early_stop": True, "lora_dropout": 0.2, "batch_size": 1200}
    settings["learning_rate"] = 2e-2
    undisturbed, world = worsening(**settings), worsening(**settings)
    assert undisturbed.train() == 0
    trained = undisturbed.manifest["trained"]
    assert trained["adapter_of_step"] < trained["steps"]
    for attempt in count():
        interruption = Interruption()
        world.faults.append(Fault("POST", "/upload/", before=interruption.request, times=1000))
        environ = {"CLOUD_RUN_TASK_ATTEMPT": str(attempt), "SUBLET_CHECKPOINT_EVERY_S": "0"}
        world.train(interruption, **environ)
        world.faults.clear()
        if world.endings:
            break
    assert attempt == trained["steps"] - 1 > 2
    assert world.adapter(epoch=world.epoch) == undisturbed.adapter()
    assert evaluations_of(world, world.epoch) == evaluations_of(undisturbed)


def test_metrics_are_streamed_to_the_owner_while_it_trains(carving, monkeypatch):
    monkeypatch.setattr(metrics, "STREAM_EVERY_S", 0)
    assert carving.train() == 0
    parts = [name for name in carving.created if f"{PREFIX}metrics/epoch-1/part-" in name]
    assert len(parts) > 2
    streamed = b"".join(carving.content(name.removeprefix(PREFIX)) for name in parts)
    lines = lines_of(carving)
    assert [json.loads(line) for line in streamed.splitlines()] == lines
    assert "eval_loss" in lines[0]
    assert all(line["peak_memory_bytes"] > 2**20 for line in lines if "loss" in line)
