"""The lease broker answers over HTTP what it answers in one process: the same, to the same."""

from datetime import timedelta

import httpx
import pytest
from in_process import InProcess
from memory_world import ACME, DISPATCHER, REGISTRAR, REVOKER, Trainer, World

from sublet.broker.app import broker_app
from sublet.errors import AccessDenied, Conflict, NotFound, TryAgain
from sublet.gcp.broker_client import HttpLeaseBroker
from sublet.gcp.sessions import Answer
from sublet.handover import Claim, Ending, Heartbeat
from sublet.jobs import Job, JobState, Progress
from sublet.leases import LeaseState
from sublet.names import JobName, LeaseName

URL = "https://broker.example"
NO_JOB = JobName.of(ACME, "none")
NO_LEASE = LeaseName.of(ACME, "none")


class EmailsAsTokens:
    def verify(self, token, *, audience):
        assert audience == URL
        return token

    def recall(self, token, *, audience):
        del token, audience


class Caller:
    """The identity of one caller, whose requests stay in this process."""

    def __init__(self, email, app) -> None:
        self._client = httpx.Client(
            transport=InProcess(app), headers={"Authorization": f"Bearer {email}"}
        )

    def session_for(self, audience):
        assert audience == URL
        return self

    def post(self, url, *, data, headers, timeout) -> Answer:
        answer = self._client.post(url, content=data, headers=headers, timeout=timeout)
        return Answer(answer.status_code, answer.headers, answer.content)


class WiredWorld(World):
    """Everybody meets the broker over HTTP."""

    def broker(self, caller):
        app = broker_app(self.lending, EmailsAsTokens(), audience=URL)
        return HttpLeaseBroker(URL, Caller(caller, app))


@pytest.fixture(params=[World, WiredWorld], ids=["in one process", "over HTTP"])
def make_world(request):
    return request.param


@pytest.fixture
def registered(make_world):
    """A file has become a dataset; its job was not started yet."""
    made = make_world()
    made.make_account()
    made.make_bucket()
    made.watch()
    made.announce(made.drop())
    return made


@pytest.fixture
def world(registered):
    registered.deliver()
    return registered


@pytest.fixture
def trainer(world) -> Trainer:
    container = world.container()
    container.claim()
    return container


def test_a_job_goes_from_its_file_to_its_end(world, trainer):
    renewed = trainer.beat(wants_token=True, progress=Progress(step=1, num_steps=2))
    assert renewed.token.expires_at <= renewed.expires_at
    assert trainer.finish().state is LeaseState.REVOKING
    assert world.the(Job).state is JobState.COMPLETED
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED


def test_what_is_sealed_in_a_lease_stays_with_the_broker(world, trainer):
    assert world.lease_of().sealed_token
    assert bool(trainer.finish().sealed_token) == (type(world) is World)


def test_who_falls_silent_is_ended_and_whoever_was_heard_of_since_is_not(world, trainer):
    seen = world.lease_of().last_heard_of
    world.advance(minutes=1)
    trainer.beat()
    revoker = world.broker(REVOKER)
    with pytest.raises(Conflict, match="has been silent only since"):
        revoker.revoke(trainer.lease, because="silent", silent_since=seen)
    heard_of = world.lease_of().last_heard_of
    ended = revoker.revoke(trainer.lease, because="silent", silent_since=heard_of)
    assert (ended.state, ended.revoked_because) == (LeaseState.REVOKED, "silent")


def test_an_account_that_somebody_switched_is_named_and_switched_back(world, trainer):
    revoker, email = world.broker(REVOKER), world.lease_of().data_account
    world.cloud.disabled.add(email)
    assert revoker.unsettled(ACME) == [email]
    revoker.settle(email)
    assert revoker.unsettled(ACME) == []
    assert email not in world.cloud.disabled


def test_files_that_are_examined_together_are_read_under_one_lease(registered):
    versions = [registered.drop(name=f"data/{number}.jsonl") for number in range(3)]
    identity = registered.cloud.metadata("acme-data").identity
    broker = registered.broker(REGISTRAR)
    opened = broker.open_for_verification(ACME, versions[0], identity, tuple(versions[1:]))
    assert [opened.reads, *opened.reads_beside] == versions
    assert [registered.opens(opened.token.secret, version) for version in versions] == [200] * 3
    ended = broker.finish(opened.lease, Ending(epoch=opened.epoch, bytes_read=0, is_success=True))
    assert ended.reads_beside == opened.reads_beside
    registered.advance(minutes=2)
    assert [registered.opens(opened.token.secret, version) for version in versions] == [401] * 3


def test_where_no_account_can_be_lit_yet_it_says_when_to_ask_again(registered):
    registered.put_to_rest(minutes=3)
    with pytest.raises(TryAgain) as refusal:
        registered.broker(DISPATCHER).open_for_training(registered.the(Job).name)
    assert refusal.value.after > timedelta(seconds=1)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (lambda broker, lease: broker.claim(lease, Claim(execution="execution-2")), Conflict),
        (lambda broker, lease: broker.renew(lease, Heartbeat(epoch=7, bytes_read=0)), Conflict),
        (lambda broker, lease: broker.claim(NO_LEASE, Claim(execution="execution-1")), NotFound),
        (lambda broker, lease: broker.revoke(lease, because="at will"), AccessDenied),
        (lambda broker, lease: broker.open_for_training(NO_JOB), AccessDenied),
    ],
)
def test_a_refusal_means_the_same(world, trainer, asked, error):
    with pytest.raises(error):
        asked(trainer.broker, trainer.lease)
