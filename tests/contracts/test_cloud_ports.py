"""
One promise, two clouds: the ports over Google's clients against the enforcing local cloud, and
their twins in memory, decide alike.
"""

import gzip
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
import requests
from google.oauth2.credentials import Credentials
from memory_world import CREATOR, VIEWER

from sublet.buckets import NotVisible
from sublet.errors import AccessDenied, NotFound, TryAgain
from sublet.gcp import leased_objects
from sublet.gcp.bucket_inspector import GcsBucketInspector
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.identity import Identity
from sublet.gcp.leased_objects import GcsLeasedObjects
from sublet.gcp.one_upload import GcsOneUpload
from sublet.gcp.token_mint import IamDataAccountSwitch, IamTokenMint
from sublet.gcp.token_probe import GcsTokenProbe
from sublet.memory.clock import MemoryClock
from sublet.memory.cloud import MemoryCloud, MemoryUploads
from sublet.names import LIVE_GENERATION, Email, Generation, ObjectVersion, OutputPrefix
from sublet.roles import VERIFIER_PERMISSIONS

TTL = timedelta(minutes=5)
LOOKS = "projects/customer-project/roles/subletVerifier"
LOOKS_AT_NO_FOLDER = "projects/customer-project/roles/olderVerifier"
numbers = count(1)


class Held:
    """A token that is handed out as it is."""

    def __init__(self, token) -> None:
        self._token = token

    def token(self):
        return self._token


class InMemory:
    """The twins."""

    def __init__(self) -> None:
        self.cloud = MemoryCloud(MemoryClock())
        self.inspector = self.mint = self.switch = self.probe = self.cloud
        self.open_objects = self.cloud.open_objects
        self.uploads = MemoryUploads(self.cloud)

    def make_bucket(self, *, shows_folders: bool = True) -> str:
        name = f"bucket-{next(numbers)}"
        self.cloud.make_bucket(name)
        self.cloud.buckets[name].shows_folders = shows_folders
        return name

    def grant_folder(self, bucket, folder, role, member) -> None:
        self.cloud.grant_folder(bucket, folder, role, member)

    def make_data_account(self) -> Email:
        return Email(f"data-{next(numbers)}@p.iam.gserviceaccount.com")

    def grant(self, bucket, role, email, condition="") -> None:
        self.cloud.grant(bucket, role, f"serviceAccount:{email}", condition)

    def put(self, bucket, name, data) -> ObjectVersion:
        return self.cloud.put(bucket, name, data)

    def forget(self, email) -> None:
        self.cloud.missing_accounts.add(email)


class OverHttp:
    """The adapters, each as the identity that it has in the cloud."""

    def __init__(self, running) -> None:
        self.running = running
        addresses = running.addresses
        endpoints = Endpoints(
            iam=addresses.iam,
            iam_credentials=addresses.iam,
            sts=addresses.sts,
            run=addresses.run,
            storage=addresses.storage,
        )
        self.broker = running.account()
        self.verifier = running.account()
        self.inspector = GcsBucketInspector(Credentials(running.token(self.verifier)), endpoints)
        identity = AsToken(endpoints, running.token(self.broker))
        self.mint = IamTokenMint(identity, endpoints)
        self.switch = IamDataAccountSwitch(identity, endpoints)
        self.probe = GcsTokenProbe(endpoints, running.clock)
        self.open_objects = partial(GcsLeasedObjects, endpoints=endpoints)
        self.uploads = GcsOneUpload(endpoints)
        looks = frozenset(VERIFIER_PERMISSIONS)
        running.do(lambda cloud: cloud.iam.create_role(LOOKS, looks))
        blind = frozenset({"storage.buckets.get", "storage.buckets.getIamPolicy"})
        running.do(lambda cloud: cloud.iam.create_role(LOOKS_AT_NO_FOLDER, blind))
        verbs = ("disable", "enable", "get")
        switch = frozenset(f"iam.serviceAccounts.{verb}" for verb in verbs)
        name = "projects/platform-project/roles/switch"
        running.do(lambda cloud: cloud.iam.create_role(name, switch))

    def make_bucket(self, *, shows_folders: bool = True) -> str:
        bucket = self.running.bucket(versioned=True)
        role = LOOKS if shows_folders else LOOKS_AT_NO_FOLDER
        self.running.grant(bucket, role, self.verifier)
        return bucket.name

    def grant_folder(self, bucket, folder, role, member) -> None:
        url = f"{self.running.addresses.storage}/storage/v1/b/{bucket}/managedFolders"
        requests.post(url, json={"name": folder}, timeout=10).raise_for_status()
        policy = {"version": 3, "bindings": [{"role": role, "members": [member]}]}
        place = f"{url}/{requests.utils.quote(folder, safe='')}/iam"
        requests.put(place, json=policy, timeout=10).raise_for_status()

    def make_data_account(self) -> Email:
        email = self.running.account()
        resource = f"projects/-/serviceAccounts/{email}"
        self.running.allow(resource, "roles/iam.serviceAccountTokenCreator", self.broker)
        self.running.allow(resource, "projects/platform-project/roles/switch", self.broker)
        return Email(email)

    def grant(self, bucket, role, email, condition="") -> None:
        self.running.grant(self.running.client().bucket(bucket), role, email, condition)

    def put(self, bucket, name, data) -> ObjectVersion:
        blob = self.running.client().bucket(bucket).blob(name)
        blob.upload_from_string(data)
        return ObjectVersion(bucket=bucket, object=name, generation=Generation(blob.generation))

    def forget(self, email) -> None:
        """Gone, with its own policy; only who holds the right on the project still learns that."""
        role = "projects/platform-project/roles/switch"
        self.running.allow("projects/platform-project", role, self.broker)
        self.running.do(lambda cloud: cloud.iam.service_accounts.delete(email))


class AsToken(Identity):
    """An identity whose token is given, where the metadata server's would be."""

    def __init__(self, endpoints: Endpoints, token: str) -> None:
        super().__init__(endpoints)
        self.__dict__["credentials"] = Credentials(token)


@pytest.fixture(params=["memory", "google clients"])
def ports(request, monkeypatch):
    if request.param == "memory":
        return InMemory()
    running = request.getfixturevalue("cloud")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.addresses.storage)
    return OverHttp(running)


@dataclass
class Scene:
    """A data account that may read a bucket and write models into it."""

    bucket: str
    email: Email
    version: ObjectVersion
    output: OutputPrefix


@pytest.fixture
def scene(ports) -> Scene:
    bucket, email = ports.make_bucket(), ports.make_data_account()
    ports.grant(bucket, VIEWER, email)
    ports.grant(bucket, CREATOR, email)
    version = ports.put(bucket, "data/a.jsonl", b"0123456789")
    return Scene(bucket, email, version, OutputPrefix(bucket=bucket, prefix="models/m/"))


def mint(ports, scene, *, ttl=TTL):
    return ports.mint.mint(scene.email, reads=scene.version, writes=scene.output, ttl=ttl)


def test_a_bucket_says_whose_it_is_and_what_it_grants(ports, scene):
    metadata, policy = ports.inspector.metadata(scene.bucket), ports.inspector.policy(scene.bucket)
    assert metadata.bucket == scene.bucket and metadata.uniform_access
    granted = {(b.role, m) for b in policy.bindings for m in b.members}
    assert (VIEWER, f"serviceAccount:{scene.email}") in granted


def test_conditions_are_seen_as_they_were_written(ports, scene):
    ports.grant(scene.bucket, VIEWER, scene.email, 'resource.name.startsWith("x")')
    policy = ports.inspector.policy(scene.bucket)
    assert 'resource.name.startsWith("x")' in {
        b.condition.expression for b in policy.bindings if b.condition
    }


def test_a_bucket_that_is_not_there_is_not_visible(ports):
    assert isinstance(ports.inspector.metadata("no-such-bucket"), NotVisible)
    assert isinstance(ports.inspector.policy("no-such-bucket"), NotVisible)


def test_the_policy_of_a_managed_folder_is_seen_with_its_place_and_counts_there(ports, scene):
    reader, outside = ports.make_data_account(), ports.put(scene.bucket, "beside.jsonl", b"x")
    assert ports.inspector.managed_folders(scene.bucket) == ()
    ports.grant_folder(scene.bucket, "data/", VIEWER, f"serviceAccount:{reader}")
    (folder,) = ports.inspector.managed_folders(scene.bucket)
    (binding,) = folder.policy.bindings
    assert (folder.folder, binding.role) == ("data/", VIEWER)
    assert binding.members == (f"serviceAccount:{reader}",)
    for version, may_read in ((scene.version, True), (outside, False)):
        token = ports.mint.mint(reader, reads=version, writes=None, ttl=TTL)
        assert ports.probe.probe(token.secret, reads=version, writes=None).is_refused != may_read


def test_managed_folders_that_the_verifier_may_not_list_are_not_visible(ports):
    bucket = ports.make_bucket(shows_folders=False)
    assert isinstance(ports.inspector.managed_folders(bucket), NotVisible)
    assert not isinstance(ports.inspector.policy(bucket), NotVisible)


def test_a_leased_object_is_read_by_generation_in_any_span(ports, scene):
    ports.put(scene.bucket, "data/a.jsonl", b"overwritten")
    objects = ports.open_objects(Held(mint(ports, scene)))
    metadata = objects.metadata(scene.version)
    assert (metadata.version, metadata.size_bytes) == (scene.version, 10)
    assert objects.read(scene.version, 0, 1) == b"0"
    assert objects.read(scene.version, 3, 10) == b"3456789"


def test_the_live_generation_is_found_where_none_is_named(ports, scene):
    newest = ports.put(scene.bucket, "data/a.jsonl", b"newest")
    objects = ports.open_objects(Held(mint(ports, scene)))
    live = ObjectVersion(bucket=scene.bucket, object="data/a.jsonl", generation=LIVE_GENERATION)
    assert objects.metadata(live).version == newest


def test_a_generation_that_never_was_is_not_found(ports, scene):
    objects = ports.open_objects(Held(mint(ports, scene)))
    gone = ObjectVersion(bucket=scene.bucket, object="data/a.jsonl", generation=Generation(999))
    with pytest.raises(NotFound):
        objects.metadata(gone)


def test_a_token_opens_its_object_and_no_other(ports, scene):
    other = ports.put(scene.bucket, "data/b.jsonl", b"other")
    longer = ports.put(scene.bucket, "data/a.jsonl.bak", b"a name that begins the same")
    objects = ports.open_objects(Held(mint(ports, scene)))
    for version in (other, longer):
        with pytest.raises(AccessDenied):
            objects.metadata(version)


def test_a_token_opens_what_lies_beside_its_object_to_read_alone(ports, scene):
    beside = ports.put(scene.bucket, "models/old/adapter_model.safetensors", b"tensors")
    card = ports.put(scene.bucket, "models/old/README.md", b"card")
    token = ports.mint.mint(
        scene.email, reads=scene.version, beside=(beside,), writes=scene.output, ttl=TTL
    )
    objects = ports.open_objects(Held(token))
    assert objects.read(beside, 0, 7) == b"tensors"
    assert objects.read(scene.version, 0, 1) == b"0"
    with pytest.raises(AccessDenied):
        objects.metadata(card)
    writes_there = OutputPrefix(bucket=scene.bucket, prefix="models/old/")
    probe = ports.probe.probe(
        token.secret, reads=scene.version, beside=(beside,), writes=writes_there
    )
    assert probe.answers == "read: 200, read beside 1: 200, create: 403"


def test_a_token_of_one_bucket_is_nothing_in_another(ports, scene):
    elsewhere = ports.make_bucket()
    ports.grant(elsewhere, VIEWER, scene.email)
    version = ports.put(elsewhere, "data/a.jsonl", b"x")
    with pytest.raises(AccessDenied):
        ports.open_objects(Held(mint(ports, scene))).metadata(version)


def test_a_token_ends_when_it_was_said_to(ports, scene):
    token = mint(ports, scene, ttl=timedelta(minutes=2))
    now = (ports.cloud if isinstance(ports, InMemory) else ports.running).clock.now()
    assert timedelta(minutes=1, seconds=50) < token.expires_at - now <= timedelta(minutes=2)
    assert token.secret not in repr(token)


def test_a_living_token_passes_the_probe_and_leaves_nothing_behind(ports, scene):
    probe = ports.probe.probe(mint(ports, scene).secret, reads=scene.version, writes=scene.output)
    assert (probe.is_refused, probe.answers) == (False, "read: 200, create: 200")
    if isinstance(ports, OverHttp):
        blobs = ports.running.client().list_blobs(scene.bucket)
        assert [blob.name for blob in blobs] == ["data/a.jsonl"]


def test_a_dark_account_refuses_its_living_tokens_and_mints_none(ports, scene):
    token = mint(ports, scene)
    assert ports.switch.is_enabled(scene.email)
    ports.switch.set_enabled(scene.email, enabled=False)
    assert not ports.switch.is_enabled(scene.email)
    probe = ports.probe.probe(token.secret, reads=scene.version, writes=scene.output)
    assert (probe.is_refused, probe.answers) == (True, "read: 401, create: 401")
    with pytest.raises(TryAgain):
        mint(ports, scene)


def test_lighting_an_account_revives_its_tokens(ports, scene):
    """
    The fact on which dark-by-default stands: an account is not lit while a token could be revived.
    """
    token = mint(ports, scene)
    for enabled in (False, True, True):
        ports.switch.set_enabled(scene.email, enabled=enabled)
    assert not ports.probe.probe(token.secret, reads=scene.version, writes=None).is_refused


def test_a_switch_of_an_account_that_is_gone_says_so(ports, scene):
    ports.forget(scene.email)
    with pytest.raises(NotFound):
        ports.switch.set_enabled(scene.email, enabled=False)
    with pytest.raises(NotFound):
        ports.switch.is_enabled(scene.email)


def test_a_withdrawn_grant_is_refused_as_well(ports, scene):
    stranger = ports.make_data_account()
    token = ports.mint.mint(stranger, reads=scene.version, writes=scene.output, ttl=TTL)
    probe = ports.probe.probe(token.secret, reads=scene.version, writes=scene.output)
    assert (probe.is_refused, probe.answers) == (True, "read: 403, create: 403")


def test_a_token_for_a_folder_lists_its_names_and_reads_nothing(ports, scene):
    ports.put(scene.bucket, "data/sub/b.jsonl", b"b")
    ports.put(scene.bucket, "data-evil/c.jsonl", b"c")
    folder = ObjectVersion(bucket=scene.bucket, object="data/", generation=LIVE_GENERATION)
    token = ports.mint.mint(scene.email, reads=folder, writes=None, ttl=TTL)
    objects = ports.open_objects(Held(token))
    first, second = objects.list_folder(folder, limit=9)
    assert (first.name, second.name) == ("data/a.jsonl", "data/sub/b.jsonl")
    assert first.generation == scene.version.generation
    assert first.created_at <= second.created_at
    assert objects.list_folder(folder, limit=1) == [first]
    assert objects.list_folder(folder, after=first.name, limit=1) == [second]
    assert objects.list_folder(folder, after=second.name, limit=1) == []
    with pytest.raises(AccessDenied):
        objects.read(scene.version, 0, 1)
    for other in ("data-evil/", "models/"):
        elsewhere = ObjectVersion(bucket=scene.bucket, object=other, generation=LIVE_GENERATION)
        with pytest.raises(AccessDenied):
            objects.list_folder(elsewhere, limit=1)
    assert not ports.probe.probe(token.secret, reads=folder, writes=None).is_refused
    ports.switch.set_enabled(scene.email, enabled=False)
    assert ports.probe.probe(token.secret, reads=folder, writes=None).is_refused


def test_a_token_for_an_object_lists_nothing(ports, scene):
    objects = ports.open_objects(Held(mint(ports, scene)))
    folder = ObjectVersion(bucket=scene.bucket, object="data/", generation=LIVE_GENERATION)
    with pytest.raises(AccessDenied):
        objects.list_folder(folder, limit=1)


def test_an_upload_that_was_opened_in_time_is_finished_when_the_token_is_refused(ports, scene):
    """The one thing that outlives the token, on purpose: the receipt's way into the bucket."""
    token, name = mint(ports, scene), "models/m/receipt-1.json"
    address = ports.uploads.open(token.secret, bucket=scene.bucket, name=name)
    ports.switch.set_enabled(scene.email, enabled=False)
    for text in (b"first", b"second"):
        ports.uploads.put(address, text)
    ports.switch.set_enabled(scene.email, enabled=True)
    live = ObjectVersion(bucket=scene.bucket, object=name, generation=LIVE_GENERATION)
    objects = ports.open_objects(Held(mint(ports, scene)))
    found = objects.metadata(live)
    assert objects.read(found.version, 0, found.size_bytes) == b"first"


def test_an_upload_is_opened_only_where_the_token_may_create(ports, scene):
    token = mint(ports, scene).secret
    for name in ("data/receipt.json", "models/m-evil/receipt.json"):
        with pytest.raises(AccessDenied):
            ports.uploads.open(token, bucket=scene.bucket, name=name)


def test_an_upload_to_a_name_that_is_taken_changes_nothing(ports, scene):
    name = "models/m/receipt-2.json"
    address = ports.uploads.open(mint(ports, scene).secret, bucket=scene.bucket, name=name)
    taken = ports.put(scene.bucket, name, b"taken")
    ports.uploads.put(address, b"receipt")
    live = ObjectVersion(bucket=scene.bucket, object=name, generation=LIVE_GENERATION)
    assert ports.open_objects(Held(mint(ports, scene))).metadata(live).version == taken


def test_an_upload_that_never_was_is_not_found(ports, scene):
    address = ports.uploads.open(
        mint(ports, scene).secret, bucket=scene.bucket, name="models/m/receipt-3.json"
    )
    with pytest.raises(NotFound):
        ports.uploads.put(f"{address}x", b"receipt")


def test_a_custom_role_that_nobody_shows_us_is_not_visible(ports):
    unknown = "projects/customer-project/roles/unknown"
    assert isinstance(ports.inspector.permissions_of(unknown), NotVisible)
    assert isinstance(ports.inspector.managed_folders("no-such-bucket"), NotVisible)


over_http = pytest.mark.parametrize("ports", ["google clients"], indirect=True)


@over_http
def test_a_lease_asks_for_nothing_that_it_is_refused(ports, scene):
    """Google's client would ask for the bucket too: a denial in its owner's log, at each lease."""
    objects = ports.open_objects(Held(mint(ports, scene)))
    trace = ports.running.do(lambda cloud: cloud.iam.trace)
    before = trace.denials()
    objects.metadata(scene.version)
    objects.read(scene.version, 0, 1)
    assert trace.denials() == before


@over_http
def test_what_is_stored_compressed_is_read_as_it_is_stored(ports, scene):
    """The checksum is of those bytes; Cloud Storage decompresses them for who does not say so."""
    stored = gzip.compress(b"0123456789")
    blob = ports.running.client().bucket(scene.bucket).blob("data/a.jsonl")
    blob.content_encoding = "gzip"
    blob.upload_from_string(stored)
    version = replace(scene.version, generation=Generation(blob.generation))
    objects = ports.open_objects(Held(mint(ports, scene)))
    metadata = objects.metadata(version)
    assert (metadata.content_encoding, metadata.size_bytes) == ("gzip", len(stored))
    assert objects.read(version, 0, len(stored)) == stored


@over_http
def test_a_folder_of_more_names_than_a_page_holds_is_listed_whole(ports, scene, monkeypatch):
    for number in range(5):
        ports.put(scene.bucket, f"many/{number}.jsonl", b"x")
    folder = ObjectVersion(bucket=scene.bucket, object="many/", generation=LIVE_GENERATION)
    token = ports.mint.mint(scene.email, reads=folder, writes=None, ttl=TTL)
    objects = ports.open_objects(Held(token))
    monkeypatch.setattr(leased_objects, "_MOST_AT_ONCE", 2)
    listed = objects.list_folder(folder, after="many/0.jsonl", limit=3)
    assert [one.name for one in listed] == [f"many/{number}.jsonl" for number in (1, 2, 3)]
    assert len(objects.list_folder(folder, limit=9)) == 5
