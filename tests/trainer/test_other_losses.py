"""Whole jobs on groups of samples and on preferences, from their order to their manifest."""

import json
import re

import pytest
from trainer_world import chat, jsonl

from sublet.jobs import TrainingSettings
from sublet.losses import Loss, LossMethod
from sublet_trainer.stops import Interruption

SETTINGS = TrainingSettings(
    batch_size=300, epochs=2, lora_rank=4, learning_rate=3e-3, weight_decay=0.0, seed=1
)
SECRET_REWARD = 0.31415926
NUMBER = r"-?\d+\.\d+(?:e[-+]?\d+)?"
GROUPS = [
    {
        "samples": [
            {**chat(f"{n}?", answer), "evals": {"score": reward}}
            for answer, reward in (("yes", SECRET_REWARD), ("no", 0.0), ("maybe", 0.125))
        ]
    }
    for n in range(8)
]
PAIRS = [
    {
        "input": {"messages": chat(f"{n}?", "")["messages"][:1]},
        "preferred_output": [{"role": "assistant", "content": "yes"}],
        "non_preferred_output": [{"role": "assistant", "content": "no"}],
    }
    for n in range(8)
]


def ordered(world, rows, method):
    world.put("in/rows.jsonl", jsonl(rows))
    world.loss, world.settings = Loss(method=method), SETTINGS
    return world


def steps(world, epoch=1):
    lines = world.content(f"epoch-{epoch}/metrics.jsonl").splitlines()
    return [one for one in map(json.loads, lines) if "grad_norm" in one]


@pytest.fixture
def groups(world):
    return ordered(world, GROUPS, LossMethod.GRPO)


def test_interrupted_after_every_step_a_reinforcement_reaches_the_same_bits(
    models, new_world, groups, fault
):
    undisturbed = ordered(new_world(models), GROUPS, LossMethod.GRPO)
    assert undisturbed.train() == 0
    exit_codes = []
    while not groups.endings:
        interruption = Interruption()
        fault("POST", "/upload/", before=interruption.request, times=1000)
        attempt = {"CLOUD_RUN_TASK_ATTEMPT": str(len(exit_codes)), "SUBLET_CHECKPOINT_EVERY_S": "0"}
        exit_codes.append(groups.train(interruption, **attempt))
        groups.faults.clear()
    assert len(exit_codes) > 3
    assert set(exit_codes[:-1]) == {143}
    assert groups.adapter(epoch=len(exit_codes)) == undisturbed.adapter()
    assert [one["extra"] for one in steps(groups, len(exit_codes))] == [
        one["extra"] for one in steps(undisturbed)
    ]


def test_two_ranks_learn_what_one_does_and_say_the_same_of_it(
    models, new_world, groups, zygote, ranks_of
):
    """Clipping, the mean over sequences and every metric are of the whole step."""
    alone = ordered(new_world(models), GROUPS, LossMethod.GRPO)
    assert alone.train() == 0
    assert zygote.fork(*ranks_of(groups, 2)).wait() == [0, 0]
    for one, other in zip(steps(groups), steps(alone), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["extra"] == pytest.approx(other["extra"], rel=1e-4, abs=1e-9)


def test_what_was_rewarded_is_told_to_the_owners_bucket_and_to_nobody_else(groups, capfd):
    """Promise 7. Even the mean of rewards is the owner's."""
    assert groups.train() == 0
    assert groups.endings[-1].is_success
    first = steps(groups)[0]["extra"]
    mean = (SECRET_REWARD + 0.125) / 3
    assert first["reward_mean"] == pytest.approx(mean)
    assert first["num_groups"] >= 1
    told = repr((groups.heartbeats, groups.endings)) + "".join(capfd.readouterr())
    untimed = re.sub(rf"(tokens_per_s|eta_s)\W+{NUMBER}", "", told)  # any digits may stand in these
    for secret in ("reward", "score", f"{SECRET_REWARD:.4f}", f"{mean:.4f}"):
        assert secret not in untimed
    numbers = [float(one) for one in re.findall(NUMBER, told)]
    assert steps(groups)[0]["loss"] in numbers
    for secret in (SECRET_REWARD, mean):
        assert pytest.approx(secret, abs=1e-6) not in numbers


def test_groups_that_tell_nothing_are_counted_in_the_manifest(world):
    equal = {"samples": [{**one, "evals": {"score": 1}} for one in GROUPS[0]["samples"]]}
    ordered(world, [*GROUPS[:4], equal], LossMethod.DAPO)
    assert world.train() == 0
    rows = world.manifest["dataset"]["rows"]
    assert (rows["num_rows"], rows["num_without_variance"]) == (5, 1)


def test_a_job_whose_rewards_are_all_equal_fails_in_words(world):
    equal = [
        {"samples": [{**one, "evals": {"score": 0}} for one in row["samples"]]} for row in GROUPS
    ]
    ordered(world, equal, LossMethod.GRPO).train()
    (ending,) = world.endings
    assert not ending.is_success
    assert "all rewards are equal inside every one of 8 groups" in ending.message


def test_preferences_are_trained_on_to_a_published_adapter(world):
    ordered(world, PAIRS, LossMethod.DPO)
    assert world.train() == 0
    assert world.endings[-1].is_success
    extra = [one["extra"] for one in steps(world)]
    assert extra[0]["accuracy"] == 0.0
    assert extra[-1]["accuracy"] == 1.0
    assert extra[-1]["margin"] > 0
