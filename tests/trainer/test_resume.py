"""Stopped anywhere and taken up again, a training ends with the same bits."""

import random
import signal
import time

import pytest

from sublet_trainer.stops import Interruption

SETTINGS = {"batch_size": 300, "epochs": 4, "lora_rank": 4, "learning_rate": 3e-3, "seed": 1}


@pytest.fixture(scope="module")
def undisturbed(models, new_world):
    world = new_world(models)
    world.settings = type(world.settings)(**SETTINGS)
    assert world.train() == 0
    return world


@pytest.fixture
def long_world(world):
    world.settings = type(world.settings)(**SETTINGS)
    return world


def killed(world, zygote, fault, *, attempt, num_steps, num_requests):
    """
    One attempt, killed with signal 9 while a request is on its way: the one after so many
    checkpoints of its own and so many requests more.
    """
    forked, num_created, left = [], len(world.created), iter(range(num_requests, -1, -1))

    def kill_at_the_point():
        is_told = world.checkpoint or not num_steps
        is_far_enough = len(world.created) - num_created >= num_steps and is_told
        if forked and is_far_enough and next(left) == 0:
            forked.pop().kill()

    for method in ("GET", "POST"):
        fault(method, "", before=kill_at_the_point, times=10_000)
    attempt_of = {"CLOUD_RUN_TASK_ATTEMPT": str(attempt), "SUBLET_CHECKPOINT_EVERY_S": "0"}
    process = zygote.fork(world.environ(**attempt_of))
    forked.append(process)
    exit_codes = process.wait()
    world.faults.clear()
    return exit_codes == [-signal.SIGKILL]


def test_killed_at_five_random_points_it_ends_with_the_bits_of_an_undisturbed_one(
    long_world, undisturbed, zygote, fault, capfd
):
    """Whatever is on its way: a heartbeat, a read, an identity token, half a checkpoint."""
    world, most = long_world, len(undisturbed.losses()) // 5
    assert most > 1
    points = [(random.randrange(most), random.randrange(6)) for _ in range(4)]
    points.append((most - 1, random.randrange(6)))  # so that there is something to resume
    print("killed after checkpoints and requests:", points)
    for attempt, (num_steps, num_requests) in enumerate(points):
        assert killed(
            world,
            zygote,
            fault,
            attempt=attempt,
            num_steps=num_steps,
            num_requests=num_requests,
        )
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="5") == 0
    assert '"message": "resumed"' in capfd.readouterr().out
    assert world.adapter(epoch=world.epoch) == undisturbed.adapter()
    assert world.losses(world.epoch) == undisturbed.losses()


def test_sigterm_leaves_a_checkpoint_from_which_the_same_bits_are_reached(
    long_world, undisturbed, zygote
):
    world = long_world
    attempt = zygote.fork(world.environ())
    world.wait_until(lambda: any(one.progress and one.progress.step for one in world.heartbeats))
    asked_at = time.monotonic()
    attempt.terminate()
    assert attempt.wait() == [143]
    assert time.monotonic() - asked_at < 10
    assert world.created == [world.checkpoint]
    assert world.endings == []
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="1") == 0
    assert world.adapter(epoch=2) == undisturbed.adapter()
    assert world.losses(2) == undisturbed.losses()
    assert world.manifest["trained"] == undisturbed.manifest["trained"]


def test_interrupted_after_every_single_step_it_still_reaches_the_same_bits(
    models, new_world, fault, world
):
    undisturbed = new_world(models)
    assert undisturbed.train() == 0
    exit_codes = []
    while not world.endings:
        interruption = Interruption()
        fault("POST", "/upload/", before=interruption.request, times=1000)
        attempt = {"CLOUD_RUN_TASK_ATTEMPT": str(len(exit_codes)), "SUBLET_CHECKPOINT_EVERY_S": "0"}
        exit_codes.append(world.train(interruption, **attempt))
        world.faults.clear()
    num_steps = len(undisturbed.losses())
    assert exit_codes == [143] * (num_steps - 1) + [0]
    assert world.adapter(epoch=num_steps) == undisturbed.adapter()
    assert world.losses(num_steps) == undisturbed.losses()


def test_a_checkpoint_of_other_settings_is_not_used(long_world, undisturbed):
    world = long_world
    world.settings = type(world.settings)(**(SETTINGS | {"seed": 2}))
    assert world.train(SUBLET_CHECKPOINT_EVERY_S="0") == 0
    foreign = next(name for name in world.created if "step-00000005" in name)
    world.settings = type(world.settings)(**SETTINGS)
    world.is_over, world.checkpoint = False, foreign
    del world.objects["out/job-1/manifest.json"], world.live["out/job-1/manifest.json"]
    assert world.train(CLOUD_RUN_TASK_ATTEMPT="1") == 0
    assert world.adapter(epoch=2) == undisturbed.adapter()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out/job-1/checkpoints/gone.safetensors", None),
        ("out/job-1/checkpoints/broken.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "),
        ("elsewhere/step-00000005-epoch-1.safetensors", b""),
    ],
    ids=["gone", "broken", "outside"],
)
def test_without_a_usable_checkpoint_training_begins_anew(
    long_world, undisturbed, name, content, capfd
):
    world = long_world
    world.checkpoint = name
    if content is not None:
        world.put(name, content)
    assert world.train() == 0
    assert "training begins anew" in capfd.readouterr().out
    assert world.adapter() == undisturbed.adapter()


def test_checkpoints_are_taken_as_often_as_asked_and_named_to_the_broker(long_world):
    assert long_world.train(SUBLET_CHECKPOINT_EVERY_S="0") == 0
    num_steps = long_world.heartbeats[-1].progress.num_steps
    names = [name for name in long_world.created if "checkpoints/" in name]
    assert names == [
        f"out/job-1/checkpoints/step-{step:08d}-epoch-1.safetensors"
        for step in range(1, num_steps + 1)
    ]
    assert long_world.checkpoint == names[-1]
