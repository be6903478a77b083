"""A file becomes a proxy dataset, once, and only if its bucket proves what it must."""

import pytest
from memory_world import World

from sublet.datasets import Dataset, DatasetState
from sublet.errors import AccessDenied, AlreadyExists, InvalidRequest, MalformedEvent, TryAgain
from sublet.events import (
    DatasetRefused,
    DatasetRegistered,
    ObjectFinalized,
    TrainingRequested,
)
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease, LeaseState, Purpose
from sublet.names import AccountName, DatasetName, Generation
from sublet.registration import DatasetRequest
from sublet.together import outcome

ACME = AccountName.of("acme")


class TogetherWorld(World):
    """Each event in a company, if only of its own."""

    def register(self, event):
        [found] = self.registration.handle_together([event])
        return outcome(found)


@pytest.fixture(params=[World, TogetherWorld], ids=["alone", "together"])
def make_world(request):
    return request.param


def test_a_file_under_a_watched_prefix_becomes_a_dataset_and_a_job(world):
    version = world.drop()
    dataset = world.announce(version)
    assert (dataset.state, dataset.object, dataset.rows.num_rows) == (
        DatasetState.READY,
        version,
        4,
    )
    job = world.the(Job)
    assert (job.state, job.dataset, job.object) == (JobState.CREATING, dataset.name, version)
    assert [type(fact) for fact in world.publisher.waiting] == [
        DatasetRegistered,
        TrainingRequested,
    ]


def test_a_second_delivery_registers_nothing_new(world):
    version = world.drop()
    assert world.announce(version) == world.announce(version)
    assert len(world.all(Dataset)) == len(world.all(Job)) == 1
    assert len(world.publisher.published) == 2


def test_two_generations_are_two_datasets_and_two_jobs(world):
    first, second = world.drop(), world.drop()
    world.announce(second)
    world.announce(first)
    assert {d.object for d in world.all(Dataset)} == {first, second}
    assert len({j.output_model for j in world.all(Job)}) == 2


def test_a_file_that_no_watch_covers_is_left_alone(world):
    assert world.announce(world.drop(name="elsewhere/train.jsonl")) is None
    assert world.all(Dataset) == [] and world.all(Lease) == []


def test_the_longest_prefix_wins(world):
    inner = world.watch(prefix="data/inner/", trains=False)
    dataset = world.announce(world.drop(name="data/inner/a.jsonl"))
    assert dataset.watch == inner.name and world.all(Job) == []


def test_a_generation_that_is_gone_is_left_to_its_successor(world):
    version = world.drop()
    world.cloud.remove(version)
    assert world.announce(version) is None
    assert world.all(Dataset) == []


def test_an_event_for_another_account_finds_none_of_our_watches(world):
    world.make_account(AccountName.of("evil"))
    assert world.announce(world.drop(), account=AccountName.of("evil")) is None


def test_a_name_that_could_fool_a_reader_is_malformed(world):
    event = ObjectFinalized(
        bucket="acme-data", object="data/../x", generation=Generation(1), account=ACME
    )
    with pytest.raises(MalformedEvent):
        world.register(event)


def test_a_public_bucket_is_refused_without_reading_a_byte(world):
    world.cloud.grant("acme-data", "roles/storage.objectViewer", "allUsers")
    dataset = world.announce(world.drop())
    assert dataset.state is DatasetState.UPLOADING
    assert dataset.status.code == "PERMISSION_DENIED"
    assert "allUsers" in dataset.status.message and "gcloud" in dataset.status.message
    assert world.cloud.bytes_served == 0 and world.all(Lease) == []
    assert [type(fact) for fact in world.publisher.waiting] == [DatasetRefused]


def test_a_bucket_of_a_project_that_the_account_does_not_declare_is_refused(world):
    world.make_account(AccountName.of("other"))
    world.cloud.buckets["acme-data"].metadata = world.cloud.make_bucket(
        "x", project_number=7
    ).metadata
    assert "project 7" in world.announce(world.drop()).status.message


def test_what_the_policy_promises_but_the_storage_refuses_is_refused(world):
    """
    A deny policy, a perimeter or a disabled key is invisible in the policy: only a read decides.
    """
    real = world.cloud.status_of
    world.cloud.status_of = lambda *asked: 403 if real(*asked) == 200 else real(*asked)
    dataset = world.announce(world.drop())
    assert dataset.status.code == "PERMISSION_DENIED"
    assert "could not be read" in dataset.status.message
    assert world.the(Lease).state is LeaseState.REVOKED


def test_bad_rows_are_reported_by_line_and_never_by_content(world):
    dataset = world.announce(world.drop(b'{"messages": "secret"}\n' * 3))
    assert dataset.status.code == "INVALID_ARGUMENT"
    assert dataset.status.message.startswith("line 1: ")
    assert "secret" not in repr(dataset)
    assert dataset.rows.num_problems == 3
    assert world.all(Job) == []


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"\n" * 5, "rows")])
def test_a_file_without_rows_is_refused(world, data, reason):
    assert reason in world.announce(world.drop(data)).status.message


def test_a_compressed_object_is_refused(world):
    version = world.drop()
    world.cloud.buckets["acme-data"].encodings[version.object] = "gzip"
    assert "Content-Encoding gzip" in world.announce(version).status.message


def test_a_dataset_is_registered_but_not_trained_where_no_model_may_be_written(world):
    cloud = world.cloud
    readers = [b for b in cloud.buckets["acme-data"].policy.bindings if "Viewer" in b.role]
    cloud.set_bindings("acme-data", readers)
    dataset = world.announce(world.drop())
    assert dataset.state is DatasetState.READY
    assert "objectCreator" in dataset.status.message
    assert world.all(Job) == []


def test_no_custom_role_is_asked_about_that_names_nobody_of_ours(world):
    """What the owner grants to others is the owner's, and decides nothing."""
    asked, ours = [], world.all(DataAccount)[0].email
    shown = world.cloud.permissions_of
    world.cloud.permissions_of = lambda role: asked.append(role) or shown(role)
    for name, email in (("theirs", "somebody@else.iam.gserviceaccount.com"), ("ours", ours)):
        role = f"projects/customer/roles/{name}"
        world.cloud.grant("acme-data", role, f"serviceAccount:{email}")
    assert world.announce(world.drop()).state is DatasetState.READY
    assert asked == ["projects/customer/roles/ours"]


def test_every_byte_is_read_under_a_lease_that_ends_right_after(world):
    dataset = world.announce(world.drop())
    lease = world.the(Lease)
    assert (lease.purpose, lease.state) == (Purpose.VERIFICATION, LeaseState.REVOKED)
    assert lease.bytes_read == world.cloud.bytes_served == dataset.size_bytes
    assert dataset.reads_under == lease.name
    assert world.cloud.disabled >= {lease.data_account}


def test_the_registration_waits_rather_than_revive_a_token(world):
    world.put_to_rest(seconds=70)
    with pytest.raises(TryAgain, match="until its last token has died"):
        world.announce(world.drop(name="data/2.jsonl"))
    world.advance(seconds=71)
    assert world.announce(world.drop(name="data/2.jsonl")).state is DatasetState.READY


def test_a_bucket_made_again_under_the_same_name_is_refused(world):
    world.announce(world.drop())
    world.advance(minutes=10)
    world.make_bucket()
    dataset = world.announce(world.drop(name="data/again.jsonl"))
    assert "another bucket of the same name" in dataset.status.message


def test_when_the_announcement_is_lost_the_sweep_makes_it(world):
    publish = world.publisher.publish
    world.publisher.publish = lambda entry: (_ for _ in ()).throw(TryAgain("the broker is away"))
    version = world.drop()
    with pytest.raises(TryAgain):
        world.announce(version)
    assert world.announce(version).state is DatasetState.READY
    world.publisher.publish = publish
    world.advance(minutes=1)
    world.sweep.run()
    assert TrainingRequested in {type(fact) for fact in world.publisher.waiting}


def request(name="d", object="data/train.jsonl") -> DatasetRequest:
    return DatasetRequest(
        name=DatasetName.of(ACME, name),
        bucket="acme-data",
        object=object,
        display_name="",
        created_by="me",
    )


def test_a_caller_registers_the_live_generation(world):
    world.drop()
    newest = world.drop()
    dataset = world.registration.create(request())
    assert dataset.object == newest
    assert world.the(Lease).reads == newest


def test_an_equal_request_finds_the_first_one_again(world):
    world.drop()
    assert world.registration.create(request()) == world.registration.create(request())


def test_a_name_is_not_given_twice(world):
    world.drop()
    world.drop(name="data/other.jsonl")
    world.registration.create(request())
    with pytest.raises(AlreadyExists):
        world.registration.create(request(object="data/other.jsonl"))


def test_a_caller_is_refused_at_once_and_nothing_is_kept(world):
    world.drop(b"{\n")
    with pytest.raises(InvalidRequest, match="line 1"):
        world.registration.create(request())
    world.cloud.grant("acme-data", "roles/storage.objectViewer", "allUsers")
    with pytest.raises(AccessDenied, match="allUsers"):
        world.registration.create(request())
    assert world.all(Dataset) == []
