"""A training of several processes: the same job, of which the first rank alone is seen outside."""

import signal

import pytest
from near import assert_near
from safetensors.torch import load
from trainer_world import chat, jsonl

SETTINGS = {
    "batch_size": 300,
    "epochs": 2,
    "lora_rank": 4,
    "learning_rate": 3e-3,
    "seed": 1,
    "eval_auto_carveout": True,
}


@pytest.fixture
def world(world, tmp_path):
    world.settings = type(world.settings)(**SETTINGS)
    return world


def weights(world, file="adapter_model.safetensors", epoch=1):
    return load(world.content(f"epoch-{epoch}/{file}"))


@pytest.fixture(scope="module")
def alone(models, new_world):
    made = new_world(models)
    made.settings = type(made.settings)(**SETTINGS)
    assert made.train() == 0
    return made


@pytest.fixture(scope="module")
def two(models, new_world, zygote, ranks_of):
    made = new_world(models)
    made.settings = type(made.settings)(**SETTINGS)
    assert zygote.fork(*ranks_of(made, 2)).wait() == [0, 0]
    return made


def test_two_ranks_end_where_one_does(two, alone):
    """Equal but for the order of fp32 additions."""
    for metric in ("loss", "grad_norm"):
        assert two.of_steps(metric) == pytest.approx(alone.of_steps(metric), rel=1e-5)
    assert two.eval_losses() == pytest.approx(alone.eval_losses(), rel=1e-5)
    assert_near(weights(two), weights(alone))
    assert two.manifest["trained"] == alone.manifest["trained"]


def test_the_first_rank_alone_is_seen_outside_and_reads_each_byte_once(two, alone):
    assert len(two.asked("POST", ":claim")) == 1
    assert len(two.reads_of_dataset) == len(alone.reads_of_dataset)
    assert len(two.created) == len(alone.created)
    (ending,) = two.endings
    assert ending.bytes_read == two.size_bytes


def test_of_more_ranks_than_documents_some_do_nothing_that_counts(
    world, models, new_world, zygote, ranks_of
):
    few = jsonl([chat("What is 2?", "It is 2."), chat("Is it?", "Yes.")])
    expected = new_world(models)
    expected.settings = world.settings
    for one in (world, expected):
        one.put("in/rows.jsonl", few)
    assert expected.train() == 0
    assert zygote.fork(*ranks_of(world, 3)).wait() == [0, 0, 0]
    assert world.losses() == pytest.approx(expected.losses(), rel=1e-5)
    assert_near(weights(world), weights(expected))


def test_a_rank_that_dies_ends_all_and_the_next_attempt_goes_on_with_fewer(
    world, alone, zygote, ranks_of
):
    """The first leaves a checkpoint of the last finished step, though nobody asked it to stop."""
    attempt = zygote.fork(*ranks_of(world, 3))
    world.wait_until(lambda: any(one.progress and one.progress.step for one in world.heartbeats))
    attempt.kill(rank=1)
    first, killed, third = attempt.wait()
    assert (first, killed) == (75, -signal.SIGKILL)
    assert third in (0, 75)  # it misses the dead one itself, or hears that the first has ended
    assert world.endings == []
    assert world.created == [world.checkpoint]
    assert zygote.fork(*ranks_of(world, 2, CLOUD_RUN_TASK_ATTEMPT="1")).wait() == [0, 0]
    assert world.losses(epoch=2) == pytest.approx(alone.losses(), rel=1e-5)
    assert_near(weights(world, epoch=2), weights(alone))


def test_sigterm_ends_all_ranks_with_one_checkpoint_from_which_the_same_bits_are_reached(
    world, two, zygote, ranks_of
):
    attempt = zygote.fork(*ranks_of(world, 2))
    world.wait_until(lambda: any(one.progress and one.progress.step for one in world.heartbeats))
    attempt.terminate()
    assert attempt.wait() == [143, 143]
    assert world.created == [world.checkpoint]
    assert zygote.fork(*ranks_of(world, 2, CLOUD_RUN_TASK_ATTEMPT="1")).wait() == [0, 0]
    assert world.adapter(epoch=2) == two.adapter()
    assert world.losses(epoch=2) == two.losses()


def test_what_another_rank_fails_with_is_what_the_user_is_told(world, zygote, ranks_of, tmp_path):
    first, second = ranks_of(world, 2)
    codes = zygote.fork(first, {**second, "SUBLET_MODELS_DIR": str(tmp_path)}).wait()
    assert codes == [0, 1]
    (ending,) = world.endings
    assert ending.code == "NOT_FOUND"
    assert "holds no base model" in ending.message


def test_a_bad_row_ends_every_rank_in_order(world, zygote, ranks_of):
    world.put("in/rows.jsonl", jsonl([chat("a", "b"), {"messages": []}]))
    assert zygote.fork(*ranks_of(world, 2)).wait() == [0, 0]
    (ending,) = world.endings
    assert "line 2" in ending.message


def test_ranks_of_an_attempt_that_has_no_lease_go_home(world, zygote, ranks_of):
    world.is_over = True
    assert zygote.fork(*ranks_of(world, 2)).wait() == [0, 0]
    assert world.endings == []
