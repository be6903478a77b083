"""Who gets a token, for what, for how long; and that nobody else ever does."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.datasets import Status
from sublet.errors import AccessDenied, Conflict, FailedPrecondition, NotFound, TryAgain
from sublet.events import TrainingFinished
from sublet.handover import Claim, TrainedAdapter
from sublet.jobs import Job, JobState, PinnedObject, Progress
from sublet.leases import DataAccount, Lease, LeaseState
from sublet.models import Model, ModelState
from sublet.names import Email, JobName, LeaseName, ModelName, ObjectVersion
from sublet.training_runs import JobRequest, Outcome


@pytest.fixture
def version(world) -> ObjectVersion:
    dropped = world.drop()
    world.announce(dropped)
    return dropped


@pytest.fixture
def trainer(world, version):
    world.deliver()
    return world.container()


def test_a_dispatched_job_has_a_lease_before_anything_is_minted(world, version):
    world.deliver()
    lease = world.lease_of()
    assert (lease.state, lease.num_tokens, lease.reads) == (LeaseState.PENDING, 0, version)
    assert world.the(Job).state is JobState.PENDING


def test_a_second_request_starts_nothing_new(world, version):
    request = world.publisher.waiting[-1]
    world.dispatch.handle(request)
    world.dispatch.handle(request)
    assert len(world.runner.started) == 1


def test_of_two_executions_only_one_gets_a_token(world, trainer):
    second = type(trainer)(trainer.broker, trainer.lease, "execution-2")
    trainer.claim()
    with pytest.raises(Conflict):
        second.claim()
    assert second.tokens == [] and world.the(Job).execution == "execution-1"


def test_a_claim_says_what_to_train_and_makes_the_job_running(world, trainer, version):
    assignment = trainer.claim()
    assert assignment.reads == version
    assert (
        assignment.training.writes.url == f"gs://acme-data/models/{world.the(Job).output_model.id}/"
    )
    assert world.the(Job).state is JobState.RUNNING


def test_the_token_reads_the_one_object_and_nothing_else(world, trainer, version):
    other = world.drop(name="data/other.jsonl")
    trainer.claim()
    (token,) = trainer.tokens
    assert world.opens(token, version) == 200
    assert world.opens(token, other) == 403


def test_a_token_lives_minutes_and_is_renewed_by_a_heartbeat(world, trainer, version):
    trainer.claim()
    world.advance(minutes=3)
    trainer.beat(wants_token=True)
    world.advance(minutes=3)
    assert [world.opens(token, version) for token in trainer.tokens] == [401, 200]


def test_without_a_heartbeat_access_ends_by_itself(world, trainer, version):
    trainer.claim()
    world.advance(minutes=5)
    assert world.opens(trainer.tokens[0], version) == 401


def test_heartbeats_keep_the_job_true(world, trainer):
    trainer.claim()
    progress = Progress(step=3, num_steps=10, epoch=0.3, loss=1.5)
    trainer.beat(bytes_read=50, progress=progress)
    job = world.the(Job)
    assert (job.progress, job.heartbeat_at) == (progress, world.clock.now())
    assert world.lease_of().bytes_read == 50


def test_finishing_ends_job_model_and_lease_together(world, trainer, version):
    trainer.claim()
    trainer.finish()
    assert world.the(Job).state is JobState.COMPLETED
    model = world.registry.get(Model, world.the(Job).output_model).record
    assert (model.state, model.uri) == (ModelState.READY, "gs://acme-data/models/m/epoch-1/")
    assert world.opens(trainer.tokens[0], version) == 401
    world.deliver()
    assert world.lease_of().state is LeaseState.REVOKED


def test_finishing_twice_is_finishing_once(world, trainer):
    trainer.claim()
    first = trainer.finish()
    assert trainer.finish() == first
    assert sum(isinstance(e.fact, TrainingFinished) for e in world.publisher.published) == 1


def test_a_failed_training_says_why_and_frees_the_models_name(world, trainer):
    trainer.claim()
    trainer.finish(is_success=False, adapter=None, code="INVALID_ARGUMENT", message="line 7: bad")
    job = world.the(Job)
    assert (job.state, job.status) == (
        JobState.FAILED,
        Status(code="INVALID_ARGUMENT", message="line 7: bad"),
    )
    assert world.registry.get(Model, job.output_model) is None


def test_a_fenced_trainer_gets_nothing_more(world, trainer):
    trainer.claim()
    retry = world.container(attempt=1)
    retry.claim()
    for act in (trainer.beat, trainer.finish):
        with pytest.raises(Conflict):
            act()
    assert world.the(Job).state is JobState.RUNNING


def test_a_retry_goes_on_from_the_checkpoint(world, trainer):
    trainer.claim()
    trainer.beat(checkpoint="models/m/checkpoints/step-8.safetensors")
    assert (
        world.container(attempt=1).claim().training.resume_from
        == "models/m/checkpoints/step-8.safetensors"
    )


def test_a_cancelled_job_stops_its_trainer_at_the_next_heartbeat(world, trainer, version):
    trainer.claim()
    world.training_runs.end(world.the(Job).name, Outcome(state=JobState.CANCELLED))
    with pytest.raises(FailedPrecondition):
        trainer.beat()
    world.deliver()
    assert world.opens(trainer.tokens[0], version) == 401
    assert (world.the(Job).state, world.lease_of().state) == (
        JobState.CANCELLED,
        LeaseState.REVOKED,
    )


def test_a_lease_has_a_hard_end_that_no_heartbeat_moves(world, trainer):
    trainer.claim()
    world.advance(hours=12)
    with pytest.raises(FailedPrecondition, match="expired"):
        trainer.beat(wants_token=True)


def test_a_tokens_end_is_recorded_before_the_token_exists(world, trainer):
    """If the broker dies while minting, the record already covers the token that nobody knows."""
    world.cloud.mint = lambda *a, **k: (_ for _ in ()).throw(TryAgain("the broker died"))
    with pytest.raises(TryAgain):
        trainer.claim()
    lease = world.lease_of()
    assert lease.dies_at >= world.clock.now() + timedelta(minutes=5)
    assert (lease.num_tokens, lease.tokens) == (1, ())


def test_nothing_is_minted_for_a_bucket_that_was_made_again(world, trainer):
    trainer.claim()
    world.advance(minutes=1)
    world.make_bucket()
    with pytest.raises(AccessDenied, match="not the bucket that was verified"):
        trainer.beat(wants_token=True)


def test_a_token_minted_while_the_lease_ends_reaches_nobody(world, trainer):
    trainer.claim()
    mint = world.cloud.mint

    def mint_while_ending(*args, **kwargs):
        token = mint(*args, **kwargs)
        world.cloud.mint = mint
        world.reclaiming.stop_minting(
            trainer.lease, because="a race", outcome=Outcome(state=JobState.FAILED)
        )
        return token

    world.cloud.mint = mint_while_ending
    with pytest.raises(Conflict):
        trainer.beat(wants_token=True)
    assert len(trainer.tokens) == 1


@pytest.mark.parametrize(
    "identity", ["trainer", "register-dataset", "control-plane", "lease-broker"]
)
def test_nobody_but_the_dispatcher_opens_a_lease_for_training(world, version, identity):
    caller = Email(f"{identity}@platform.iam.gserviceaccount.com")
    with pytest.raises(AccessDenied, match="may not open"):
        world.lending.open_for_training(caller, world.the(Job).name)


@pytest.mark.parametrize("identity", ["start-training", "revoke-access", "register-dataset"])
def test_nobody_but_a_trainer_claims_a_training(world, trainer, identity):
    trainer.broker = world.broker(Email(f"{identity}@platform.iam.gserviceaccount.com"))
    with pytest.raises(AccessDenied):
        trainer.claim()


def test_a_trainer_cannot_revoke_and_a_verifier_only_its_own(world, trainer):
    for identity in ("trainer", "register-dataset", "start-training"):
        caller = Email(f"{identity}@platform.iam.gserviceaccount.com")
        with pytest.raises(AccessDenied):
            world.lending.revoke(caller, trainer.lease, because="mischief")


def test_a_job_that_cannot_start_fails_with_the_reason(world, version):
    world.make_bucket()
    world.cloud.buckets["acme-data"].metadata = world.cloud.make_bucket(
        "x", project_number=7
    ).metadata
    world.deliver()
    job = world.the(Job)
    assert job.state is JobState.FAILED
    assert "could not be started" in job.status.message


def test_leases_that_share_an_account_end_when_the_last_one_does(shared):
    world, trainer, version = shared, shared.trainer, shared.lease_of().reads
    neighbour = world.drop(name="data/neighbour.jsonl")
    world.announce(neighbour)
    verification = next(x for x in world.all(Lease) if x.reads == neighbour)
    assert verification.state is LeaseState.REVOKING
    assert world.opens(trainer.tokens[0], version) == 200
    world.advance(seconds=71)
    world.sweep.run()
    ended = world.registry.get(Lease, verification.name).record
    assert (ended.state, ended.num_probes) == (LeaseState.REVOKED, 0)


def test_an_account_goes_dark_with_the_training_that_used_it_last(world, trainer):
    used = world.lease_of().data_account
    assert used not in world.cloud.disabled
    trainer.claim()
    trainer.finish()
    assert used in world.cloud.disabled
    account = world.registry.get(DataAccount, DataAccount.key_of(used)).record
    assert account.tokens_die_at >= world.clock.now() + timedelta(minutes=5)


def test_a_lease_that_does_not_exist_cannot_be_claimed(world):
    broker = world.broker(Email("trainer@platform.iam.gserviceaccount.com"))
    with pytest.raises(NotFound):
        broker.claim(LeaseName.parse("accounts/acme/leases/ls-none"), Claim(execution="e"))


# --- what is read beside the dataset --------------------------------------------------------------


@pytest.fixture
def continuing(world, trainer, version):
    """A job that trains the first one's adapter further, its container started."""
    trainer.claim()
    trainer.finish()
    first = world.the(Job)
    world.cloud.put("acme-data", trainer.weights().version.object, b"tensors")
    world.cloud.put("acme-data", f"{first.output.prefix}epoch-1/README.md", b"card")
    request = JobRequest(
        name=JobName.of(first.name.account, "further"),
        dataset=first.dataset,
        warm_start_from=first.output_model,
        output_model=ModelName.of(first.name.account, "further"),
        settings=first.settings,
        created_by="owner",
    )
    world.training_runs.request(request)
    world.advance(minutes=6)
    world.deliver()
    return world.container("execution-2")


def test_a_continued_adapters_tensors_are_read_and_nothing_beside_them(world, continuing, version):
    assignment = continuing.claim()
    (tensors,) = assignment.reads_beside
    assert assignment.training.starts_from.version == tensors
    assert assignment.training.base_sha256 == "b" * 64
    token = assignment.token.secret
    assert (world.opens(token, version), world.opens(token, tensors)) == (200, 200)
    card = replace(tensors, object=tensors.object.replace("adapter_model.safetensors", "README.md"))
    longer = replace(tensors, object=f"{tensors.object}.bak")
    assert (world.opens(token, card), world.opens(token, longer)) == (403, 403)
    write = world.cloud.status_of(token, "storage.objects.create", "acme-data", tensors.object)
    assert write == 403


def test_the_end_of_access_is_tried_on_everything_that_was_read(world, continuing):
    continuing.claim()
    continuing.finish()
    world.deliver()
    lease = world.registry.get(Lease, continuing.lease).record
    assert lease.state is LeaseState.REVOKED
    assert "read beside 1: 401" in lease.last_probe.answers


def test_tensors_outside_of_its_output_cannot_be_named_by_a_trainer(world, trainer, version):
    """A later job would read what they are: somebody else's rows, with its owner's right."""
    trainer.claim()
    theirs = PinnedObject(version=version, crc32c="AAAAAA==", size_bytes=1)
    lie = TrainedAdapter(folder="models/m/", rank=8, target_modules=("q_proj",), weights=theirs)
    trainer.finish(adapter=lie)
    assert world.the(Job).state is JobState.FAILED
    assert "not under the output prefix" in world.the(Job).status.message
    assert world.all(Model)[-1].name.account.id == "fireworks"  # the model's name is free again
