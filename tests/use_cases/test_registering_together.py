"""
Files of a burst share one look at their bucket and one lease; each is judged by itself, and takes
nobody along with it.
"""

from dataclasses import replace

import pytest
from indexed_registry import IndexedRegistry
from memory_world import ACME, REGISTRAR, VIEWER, World, rows

from sublet.buckets import PinnedBucket
from sublet.datasets import Dataset, DatasetState
from sublet.errors import BetterAlone, InvalidRequest, MalformedEvent, TryAgain
from sublet.events import DatasetRegistered, ObjectFinalized, TrainingRequested
from sublet.jobs import Job, JobState
from sublet.leases import MOST_READ_TOGETHER, Lease, LeaseState
from sublet.memory.broker import InProcessBroker
from sublet.memory.cloud import MemoryCloud
from sublet.memory.registry import MemoryRegistry
from sublet.names import LIVE_GENERATION, AccountName, ObjectVersion
from sublet.receipts import receipt_content, receipt_of

GLOBEX = AccountName.of("globex")
BUCKETS = ("acme-data", "acme-more", "globex-data")


def finalized(*versions, account=ACME) -> list[ObjectFinalized]:
    return [ObjectFinalized.of(version, account) for version in versions]


def drop(world, count) -> list[ObjectVersion]:
    return [world.drop(name=f"data/{number}.jsonl") for number in range(count)]


class AskedCloud(MemoryCloud):
    """Keeps what its buckets' policies were asked for."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.asked: list[str] = []

    def policy(self, bucket):
        self.asked.append("policy")
        return super().policy(bucket)

    def managed_folders(self, bucket):
        self.asked.append("managed folders")
        return super().managed_folders(bucket)


class WatchedRegistry(MemoryRegistry):
    """
    Keeps how many datasets each commit made; something may happen once before or after such a one,
    and that of one object may be refused.
    """

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.num_datasets: list[int] = []
        self.before_datasets = self.after_datasets = self.refused = None

    def commit(self, *writes, announcing=()):
        objects = [write.record.object for write in writes if isinstance(write.record, Dataset)]
        if self.refused in objects:
            raise TryAgain("busy")
        count = len(objects)
        if count:
            self.num_datasets.append(count)
            self._once("before_datasets")
        entries = super().commit(*writes, announcing=announcing)
        if count:
            self._once("after_datasets")
        return entries

    def _once(self, when: str) -> None:
        happens = getattr(self, when)
        setattr(self, when, None)
        if happens:
            happens()


class AskedWorld(World):
    def make_cloud(self):
        return AskedCloud(self.clock)

    def make_registry(self):
        self.records = WatchedRegistry(self.clock)
        return IndexedRegistry(self.records)


@pytest.fixture
def make_world():
    return AskedWorld


def test_several_files_become_as_many_datasets_and_jobs(world):
    versions = drop(world, 3)
    datasets = world.registration.handle_together(finalized(*versions))
    assert [dataset.object for dataset in datasets] == versions
    assert {(d.state, d.rows.num_rows) for d in datasets} == {(DatasetState.READY, 4)}
    assert {job.dataset for job in world.all(Job)} == {dataset.name for dataset in datasets}
    assert sorted(type(fact).__name__ for fact in world.publisher.waiting) == (
        [DatasetRegistered.__name__] * 3 + [TrainingRequested.__name__] * 3
    )


def test_they_are_what_they_are_alone(world, make_world):
    other = make_world()
    other.make_account()
    other.make_bucket()
    other.watch()
    together = world.registration.handle_together(finalized(*drop(world, 2)))
    alone = [other.announce(version) for version in drop(other, 2)]
    lease_and_times = {"reads_under": None, "access": None, "created_at": None}
    assert [replace(dataset, **lease_and_times) for dataset in together] == [
        replace(dataset, **lease_and_times) for dataset in alone
    ]
    for mine, theirs in zip(together, alone, strict=True):
        assert {(f.fact, f.verdict) for f in mine.access.findings} == {
            (f.fact, f.verdict) for f in theirs.access.findings
        }
        assert mine.access.object == mine.object.object


def test_one_look_at_the_bucket_and_one_lease_serve_them_all(world):
    datasets = world.registration.handle_together(finalized(*drop(world, 5)))
    assert world.cloud.asked == ["policy", "managed folders"]
    lease = world.the(Lease)
    assert {lease.reads, *lease.reads_beside} == {dataset.object for dataset in datasets}
    assert {dataset.reads_under for dataset in datasets} == {lease.name}
    assert (lease.state, lease.num_tokens) == (LeaseState.REVOKED, 1)
    assert lease.bytes_read == world.cloud.bytes_served == sum(d.size_bytes for d in datasets)
    assert lease.last_probe.answers.count("401") == 5


def test_the_receipt_of_a_job_says_what_else_its_registration_could_read(world):
    versions = drop(world, 2)
    world.registration.handle_together(finalized(*versions))
    job = world.all(Job)[1]
    reading = receipt_content(receipt_of(world.registry, job.name))["readings"][0]
    named = [reading["externalUrl"], *(one["externalUrl"] for one in reading["readsBeside"])]
    assert sorted(named) == sorted(version.url for version in versions)


def test_a_bad_file_a_gone_one_and_a_strange_one_take_nobody_along(world):
    good, gone = drop(world, 2)
    bad = world.drop(b"{\n", name="data/bad.jsonl")
    world.cloud.remove(gone)
    strange = replace(finalized(good)[0], object="data/../x")
    events = [*finalized(gone, bad), strange, *finalized(good)]
    nothing, refused, malformed, registered = world.registration.handle_together(events)
    assert nothing is None
    assert refused.status.message.startswith("line 1: ")
    assert isinstance(malformed, MalformedEvent)
    assert registered.state is DatasetState.READY


def test_who_may_not_be_read_is_refused_and_not_in_the_lease(world):
    """The owner's condition names one folder; the other file is not even tried."""
    condition = 'resource.name.startsWith("projects/_/buckets/acme-data/objects/data/in/")'
    bindings = world.cloud.buckets["acme-data"].policy.bindings
    data_accounts = [b for b in bindings if b.role == VIEWER and "data-" in b.members[0]]
    world.cloud.set_bindings("acme-data", [b for b in bindings if b not in data_accounts])
    for binding in data_accounts:
        world.cloud.grant("acme-data", VIEWER, binding.members[0], condition)
    inside, outside = world.drop(name="data/in/a.jsonl"), world.drop(name="data/out/b.jsonl")
    one, other = world.registration.handle_together(finalized(outside, inside))
    assert (one.status.code, other.state) == ("PERMISSION_DENIED", DatasetState.READY)
    lease = world.the(Lease)
    assert (lease.reads, lease.reads_beside) == (inside, ())
    assert one.reads_under is None


def test_where_all_are_refused_no_lease_is_opened(world):
    world.cloud.grant("acme-data", VIEWER, "allUsers")
    datasets = world.registration.handle_together(finalized(*drop(world, 2)))
    assert {dataset.status.code for dataset in datasets} == {"PERMISSION_DENIED"}
    assert world.all(Lease) == []


def test_once_the_bucket_is_the_accounts_own_they_are_kept_in_one_commit(world):
    world.announce(world.drop(name="data/first.jsonl"))
    world.records.num_datasets.clear()
    world.registration.handle_together(finalized(*drop(world, 4)))
    assert world.records.num_datasets == [4]
    assert len(world.publisher.published) == 2 + 4 * 2


def test_a_bucket_that_is_new_becomes_the_accounts_own_under_each_prefix(world):
    world.watch(prefix="more/")
    world.registration.handle_together(finalized(world.drop(), world.drop(name="more/a.jsonl")))
    assert sorted(world.the(PinnedBucket).prefixes) == ["data/", "more/"]


def test_one_that_cannot_be_kept_now_comes_again_and_the_others_are_kept(world):
    world.announce(world.drop(name="data/first.jsonl"))
    versions = drop(world, 3)
    world.records.refused = versions[1]
    one, refused, other = world.registration.handle_together(finalized(*versions))
    assert {one.state, other.state} == {DatasetState.READY}
    assert isinstance(refused, TryAgain)
    assert len(world.publisher.published) == 2 + 2 * 2
    world.records.refused = None
    assert world.announce(versions[1]).state is DatasetState.READY


def test_where_somebody_has_kept_one_of_them_the_others_are_kept_all_the_same(world):
    first = world.announce(world.drop(name="data/first.jsonl"))
    versions = drop(world, 3)
    world.records.before_datasets = lambda: world.announce(versions[1])
    datasets = world.registration.handle_together(finalized(*versions))
    assert [dataset.object for dataset in datasets] == versions
    assert {d.name: d for d in world.all(Dataset)} == {d.name: d for d in (first, *datasets)}
    assert len(world.all(Job)) == 4
    assert len(world.publisher.published) == 8


def test_what_was_kept_and_its_answer_lost_is_found_and_announced_later(world):
    world.announce(world.drop(name="data/first.jsonl"))
    versions = drop(world, 2)
    world.records.after_datasets = lambda: (_ for _ in ()).throw(TryAgain("no answer"))
    datasets = world.registration.handle_together(finalized(*versions))
    assert [dataset.object for dataset in datasets] == versions
    assert len(world.publisher.published) == 2
    world.advance(minutes=1)
    world.sweep.run()
    assert len(world.publisher.published) == 6


def test_one_generation_is_registered_once_however_often_it_comes(world):
    [version] = drop(world, 1)
    first, second = world.registration.handle_together(finalized(version, version))
    assert first == second == world.the(Dataset)
    assert world.registration.handle_together(finalized(version)) == [first]
    assert len(world.publisher.published) == 2


def test_what_would_keep_the_others_waiting_is_left_to_be_handled_alone(world):
    large = world.drop(rows(5000))
    long_name = world.drop(name=f"data/{'x' * 256}.jsonl")
    folder = world.drop(b"", name="data/folder/")
    small = world.drop(name="data/small.jsonl")
    *left, dataset = world.registration.handle_together(finalized(large, long_name, folder, small))
    assert [type(one) for one in left] == [BetterAlone] * 3
    assert dataset.state is DatasetState.READY
    assert world.cloud.bytes_served == dataset.size_bytes
    assert len(world.all(Dataset)) == 1
    alone = [world.registration.handle(event) for event in finalized(large, long_name)]
    assert {one.state for one in alone} == {DatasetState.READY}


def test_buckets_and_accounts_share_nothing(world):
    world.make_account(GLOBEX)
    world.make_bucket("globex-data", GLOBEX)
    world.watch("globex-data", account=GLOBEX)
    world.make_bucket("acme-more")
    world.watch("acme-more")
    ours, more, theirs = map(world.drop, (None,) * 3, ("data/a.jsonl",) * 3, BUCKETS)
    events = [*finalized(ours, more), *finalized(theirs, account=GLOBEX)]
    datasets = world.registration.handle_together(events)
    assert {d.state for d in datasets} == {DatasetState.READY}
    leases = {(lease.name.account, lease.reads) for lease in world.all(Lease)}
    assert leases == {(ACME, ours), (ACME, more), (GLOBEX, theirs)}
    assert not any(lease.reads_beside for lease in world.all(Lease))


def test_what_is_in_the_way_of_the_bucket_is_in_the_way_of_each_and_all_come_again(world):
    world.put_to_rest(seconds=70)
    events = finalized(*drop(world, 2))
    assert [type(one) for one in world.registration.handle_together(events)] == [TryAgain] * 2
    world.advance(seconds=71)
    datasets = world.registration.handle_together(events)
    assert {dataset.state for dataset in datasets} == {DatasetState.READY}


def test_what_could_not_be_announced_is_registered_and_announced_later(world):
    publish = world.publisher.publish
    world.publisher.publish = lambda entries: (_ for _ in ()).throw(TryAgain("the broker is away"))
    events = finalized(*drop(world, 2))
    with pytest.raises(TryAgain):
        world.registration.handle_together(events)
    assert {d.state for d in world.registration.handle_together(events)} == {DatasetState.READY}
    world.publisher.publish = publish
    world.advance(minutes=1)
    world.sweep.run()
    assert len(world.publisher.waiting) == 4


def test_jobs_of_files_that_were_registered_together_end_each_by_itself(world):
    world.registration.handle_together(finalized(*drop(world, 2)))
    world.deliver()
    first, second = world.all(Job)
    trainer = world.container("execution-1")
    trainer.claim()
    trainer.finish()
    assert {world.registry.get(Job, job.name).record.state for job in (first, second)} == {
        JobState.COMPLETED,
        JobState.PENDING,
    }


# --- what the broker lets share a lease -----------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"bucket": "globex-data"}, "all in gs://acme-data"),
        ({"generation": LIVE_GENERATION}, "expected generations"),
        ({"object": "data/"}, "expected generations"),
    ],
    ids=["another bucket", "whatever is live", "a folder"],
)
def test_only_generations_of_one_bucket_share_a_lease(world, changed, why):
    first, second = drop(world, 2)
    identity = world.cloud.metadata("acme-data").identity
    with pytest.raises(InvalidRequest, match=why):
        world.broker(REGISTRAR).open_for_verification(
            ACME, first, identity, (replace(second, **changed),)
        )
    assert world.all(Lease) == []


def test_a_lease_is_for_a_few_objects_at_most(world):
    first, *others = drop(world, MOST_READ_TOGETHER + 1)
    identity = world.cloud.metadata("acme-data").identity
    with pytest.raises(InvalidRequest, match="9 objects for one lease; expected at most 8"):
        world.broker(REGISTRAR).open_for_verification(ACME, first, identity, tuple(others))


class BrokerOfYesterday(InProcessBroker):
    """It knows nothing of objects beside the first."""

    def open_for_verification(self, account, reads, identity, reads_beside=()):
        del reads_beside
        return super().open_for_verification(account, reads, identity)


class WorldOfYesterday(World):
    def broker(self, caller):
        return BrokerOfYesterday(self.lending, caller)


def test_beside_a_broker_of_an_earlier_release_nobody_is_refused_for_it():
    world = WorldOfYesterday()
    world.make_account()
    world.make_bucket()
    world.watch()
    versions = drop(world, 2)
    dataset, other = world.registration.handle_together(finalized(*versions))
    assert dataset.state is DatasetState.READY
    assert isinstance(other, BetterAlone)
    assert world.announce(versions[1]).state is DatasetState.READY
