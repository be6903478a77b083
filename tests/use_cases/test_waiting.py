"""A job that waits for a data account says so, until it starts."""

import pytest

from sublet.audit import AuditEntry
from sublet.datasets import Status
from sublet.errors import TryAgain
from sublet.jobs import Job, JobState
from sublet.training_runs import Outcome


@pytest.fixture
def world(make_world):
    """One data account, and a job that is asked for while it rests."""
    made = make_world()
    made.make_account(num_data_accounts=1)
    made.make_bucket()
    made.watch()
    made.announce(made.drop())
    made.put_to_rest(seconds=70)
    (made.requested,) = [fact for fact in made.publisher.waiting if "requested" in fact.type]
    return made


def status(world) -> tuple[str, str]:
    return world.the(Job).status.code, world.the(Job).status.message


def test_a_job_that_waits_says_for_what_and_until_when_and_that_nothing_is_wrong(world):
    before = len(world.all(AuditEntry))
    for _ in range(2):
        with pytest.raises(TryAgain):
            world.dispatch.handle(world.requested)
    code, message = status(world)
    assert (code, world.the(Job).state) == ("OK", JobState.CREATING)
    assert message.startswith("waiting: each data account of accounts/acme rests until")
    assert message.endswith("the first of 1 is free at 12:01:10Z")
    assert len(world.all(AuditEntry)) == before, "to wait is no event"


def test_a_job_that_has_started_waits_for_nothing(world):
    with pytest.raises(TryAgain):
        world.dispatch.handle(world.requested)
    world.advance(minutes=2)
    world.dispatch.handle(world.requested)
    assert status(world) == ("OK", "") and world.the(Job).lease


def test_a_job_that_was_cancelled_while_it_waited_stays_so(world):
    cancelled = Outcome(state=JobState.CANCELLED, status=Status(code="CANCELLED", message="by me"))
    world.training_runs.end(world.the(Job).name, cancelled)
    ended = world.the(Job)
    world.dispatch._tell_why_it_waits(ended, "too late")
    assert world.the(Job) == ended
