"""A job's machine, from the request to the container."""

import pytest
from memory_world import ACME

from sublet.errors import Conflict, InvalidRequest
from sublet.jobs import Job, JobState, TrainingSettings
from sublet.leases import LeaseState
from sublet.machines import Machine, Offer
from sublet.names import JobName, ModelName
from sublet.ports import ExecutionState
from sublet.training_runs import JobRequest

H100 = Machine(accelerator="NVIDIA_H100_80GB", count=8)


@pytest.fixture
def dataset(world):
    """One that no watch has trained on."""
    world.announce(world.drop())
    world.publisher.waiting.clear()
    return world.the(Job).dataset


def request(dataset, machine: Machine | None) -> JobRequest:
    return JobRequest(
        name=JobName.of(ACME, "by-hand"),
        dataset=dataset,
        base_model=ModelName("accounts/fireworks/models/tiny-random"),
        output_model=ModelName.of(ACME, "by-hand"),
        settings=TrainingSettings(),
        machine=machine,
        created_by="owner",
    )


def test_the_container_is_started_on_the_machine_that_was_asked_for(world, dataset):
    asked_for = []
    start = world.runner.start
    world.runner.start = lambda *given: asked_for.append(given[2]) or start(*given)
    job = world.training_runs.request(request(dataset, H100))
    world.deliver()
    assert job.machine == H100 and asked_for == [H100]


def test_a_choice_that_was_left_open_is_made_at_once(world, dataset):
    """Another deployment tomorrow does not change what a job was promised today."""
    open_choice = Machine(accelerator="NVIDIA_H200_141GB")
    job = world.training_runs.request(request(dataset, open_choice))
    assert job.machine == Machine(accelerator="NVIDIA_H200_141GB", count=8)
    assert world.training_runs.request(request(dataset, open_choice)) == job


def test_a_job_for_a_machine_that_is_not_there_is_never_made(world, dataset):
    world.training_runs._offer = Offer(cloud_run=["NVIDIA_L4_24GB"])
    with pytest.raises(InvalidRequest, match="this deployment has NVIDIA_L4_24GB"):
        world.training_runs.request(request(dataset, H100))
    assert world.registry.get(Job, JobName.of(ACME, "by-hand")) is None


def test_a_trainer_that_waits_for_a_machine_is_not_taken_for_a_silent_one(world):
    """Eight free accelerators may take hours to come; only the lease's own end bounds that."""
    world.announce(world.drop())
    world.deliver()
    world.runner.end("execution-1", ExecutionState.WAITING)
    world.advance(hours=11)
    assert "lease ended" not in world.sweep.run().repairs
    assert world.lease_of().state is LeaseState.PENDING
    world.runner.end("execution-1", ExecutionState.RUNNING)
    world.advance(minutes=1)
    assert world.sweep.run().repairs["lease ended"] == 1
    assert world.the(Job).state is JobState.FAILED


def test_a_stray_that_waits_for_a_machine_is_cancelled_too(world):
    world.announce(world.drop())
    world.deliver()
    container = world.container()
    container.claim()
    container.finish()
    world.deliver()
    world.runner.end("execution-1", ExecutionState.WAITING)
    world.advance(minutes=6)
    assert world.sweep.run().repairs["stray execution cancelled"] == 1


def test_a_machine_that_is_gone_by_the_time_of_the_start_ends_the_job_in_words(world, dataset):
    """Terraform offers less than when the job was asked for."""
    world.training_runs.request(request(dataset, H100))
    offer = Offer(cloud_run=["NVIDIA_L4_24GB"])
    world.runner.start = lambda job, lease, machine: offer.shape_of(machine)
    world.deliver()
    stored = world.registry.get(Job, JobName.of(ACME, "by-hand"))
    assert stored.record.state is JobState.FAILED
    assert "could not be started: got NVIDIA_H100_80GB x 8" in stored.record.status.message


def test_a_custom_job_that_restarts_takes_its_own_lease_up_again(world):
    """Its execution has the name it had: nobody waits for silence, and what is left is fenced."""
    world.announce(world.drop())
    world.deliver()
    before, after = world.container(), world.container()
    before.claim()
    after.claim()
    assert after.epoch == before.epoch + 1
    with pytest.raises(Conflict):
        before.beat()
    after.beat()
