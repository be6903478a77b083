"""A training that outlasts its executions is a chain of them, under one lease."""

import pytest

from sublet.events import TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import LeaseState
from sublet.ports import ExecutionState

TIME_LIMIT = "the task ran past its timeout of 3600 s"


@pytest.fixture
def spent(world):
    """An execution that has used up its tries at its time limit, two checkpoints further."""
    world.announce(world.drop())
    world.deliver()
    container = world.container()
    container.claim()
    for step in (1, 2):
        container.beat(checkpoint=f"models/m/checkpoints/step-{step}")
    world.runner.end("execution-1", ExecutionState.FAILED, TIME_LIMIT)
    return container


def sweep_after(world, **time: float):
    world.advance(**time)
    return world.sweep.run()


def test_an_execution_that_got_further_is_followed_by_another_under_the_same_lease(world, spent):
    assert sweep_after(world, minutes=2).repairs == {"training continued": 1}
    world.deliver()
    job = world.the(Job)
    assert (job.state, job.execution) == (JobState.RUNNING, "execution-2")
    follower = world.container("execution-2")
    assignment = follower.claim()
    assert assignment.lease == spent.lease
    assert assignment.epoch == spent.epoch + 1
    assert assignment.training.resume_from == "models/m/checkpoints/step-2"
    follower.finish()
    assert world.the(Job).state is JobState.COMPLETED
    assert world.lease_of().name == spent.lease


def test_one_that_got_no_further_than_it_began_ends_the_job(world, spent):
    """Whatever ended it would end the next one too."""
    sweep_after(world, minutes=2)
    world.deliver()
    follower = world.container("execution-2")
    follower.claim()
    follower.beat(checkpoint="models/m/checkpoints/step-2")
    world.runner.end("execution-2", ExecutionState.FAILED, "out of memory")
    assert sweep_after(world, minutes=2).repairs == {"lease ended": 1}
    job = world.the(Job)
    assert job.state is JobState.FAILED
    assert "execution-2 is FAILED and its trainer never reported: out of memory" in (
        job.status.message
    )


def test_one_without_a_checkpoint_ends_the_job(world):
    world.announce(world.drop())
    world.deliver()
    world.container().claim()
    world.runner.end("execution-1", ExecutionState.FAILED, TIME_LIMIT)
    assert sweep_after(world, minutes=2).repairs == {"lease ended": 1}
    assert world.the(Job).state is JobState.FAILED


@pytest.mark.parametrize("state", [ExecutionState.CANCELLED, ExecutionState.SUCCEEDED])
def test_one_that_somebody_cancelled_or_that_left_by_itself_is_not_followed(world, spent, state):
    world.runner.end("execution-1", state)
    assert sweep_after(world, minutes=2).repairs == {"lease ended": 1}


def test_the_chain_ends_with_the_lease(world, spent):
    assert sweep_after(world, hours=13).repairs == {"lease ended": 1}
    assert "it expired at" in world.the(Job).status.message


def test_a_lost_request_to_go_on_is_made_again(world, spent):
    sweep_after(world, minutes=2)
    world.publisher.waiting.clear()
    assert sweep_after(world, minutes=2).repairs == {"training requested again": 1}
    world.deliver()
    assert world.the(Job).execution == "execution-2"


def test_a_request_that_comes_twice_starts_one_execution(world, spent):
    sweep_after(world, minutes=2)
    world.deliver()
    world.dispatch.handle(
        TrainingRequested(job=world.the(Job).name, requested_at=world.clock.now())
    )
    assert sorted(world.runner.started) == ["execution-1", "execution-2"]


def test_the_next_execution_is_given_time_to_start_and_is_no_stray(world, spent):
    sweep_after(world, minutes=9)
    world.deliver()
    assert not sweep_after(world, minutes=7).repairs
    world.container("execution-2").claim()
    assert world.lease_of().state is LeaseState.ACTIVE


def test_one_that_hangs_is_still_ended_by_its_silence(world, spent):
    sweep_after(world, minutes=9)
    world.deliver()
    assert sweep_after(world, minutes=11).repairs == {"lease ended": 1}
