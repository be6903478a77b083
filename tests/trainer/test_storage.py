"""Reading the pinned generation and creating objects, through whatever the network does."""

import os
from base64 import b64encode
from hashlib import md5

import pytest

from sublet.errors import AccessDenied, AlreadyExists, FailedPrecondition, TryAgain
from sublet.handover import Claim
from sublet.names import OutputPrefix
from sublet_trainer.leased import output as output_module
from sublet_trainer.leased import storage as storage_module
from sublet_trainer.leased.broker import Broker
from sublet_trainer.leased.lease import HeldLease
from sublet_trainer.leased.output import Output
from sublet_trainer.leased.storage import Storage
from sublet_trainer.stops import Interrupted, Interruption

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def interruption():
    return Interruption()


@pytest.fixture
def lease(world, interruption):
    world.put("in/rows.jsonl", DATA)
    broker = Broker(url=world.url, metadata_host=world.host, lease=world.lease)
    with HeldLease(broker, broker.claim(Claim(execution="e"), wait=interruption.wait)) as lease:
        yield lease


@pytest.fixture
def storage(world, lease, interruption):
    return Storage(lease, url=world.url, wait=interruption.wait)


@pytest.fixture
def output(storage, lease):
    return Output(storage, lease.assignment.training.writes)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(storage_module, "REFUSAL_PAUSES_S", (0, 0))


@pytest.fixture
def small_ranges(monkeypatch):
    monkeypatch.setattr(storage_module, "RANGE_BYTES", 100_000)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(output_module, "CHUNK_BYTES", 256 * 1024)


def asked_ranges(world):
    return [one.headers["Range"] for one in world.reads_of_dataset]


def counted(lease):
    return lease._heartbeat.bytes_read


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_ranges")
def test_an_object_is_read_in_ranges_of_one_generation(world, storage, lease):
    assert b"".join(storage.read(world.reads, 0, len(DATA))) == DATA
    assert asked_ranges(world)[:2] == ["bytes=0-99999", "bytes=100000-199999"]
    assert asked_ranges(world)[-1] == f"bytes=1000000-{len(DATA) - 1}"
    wanted = f"generation={world.reads.generation}"
    assert all(wanted in one.path for one in world.reads_of_dataset)
    assert all(one.headers["Accept-Encoding"] == "gzip" for one in world.reads_of_dataset)
    assert counted(lease) == len(DATA)


@pytest.mark.usefixtures("small_ranges")
def test_a_part_is_read_from_and_to_the_byte(world, storage):
    assert b"".join(storage.read(world.reads, 77, 200_077)) == DATA[77:200_077]


@pytest.mark.usefixtures("small_ranges")
def test_no_more_than_one_range_is_fetched_ahead(world, storage):
    chunks = storage.read(world.reads, 0, len(DATA))
    for number in range(1, 5):
        next(chunks)
        assert len(world.reads_of_dataset) <= number + 1
    chunks.close()
    assert len(world.reads_of_dataset) <= 5


@pytest.mark.usefixtures("small_ranges")
def test_after_a_reset_in_mid_range_reading_goes_on_at_the_exact_byte(world, storage, lease, fault):
    for cut in (50_000, 0, 1, 99_999):
        fault("GET", "in%2Frows", cut_after=cut)
    assert b"".join(storage.read(world.reads, 0, len(DATA))) == DATA
    assert counted(lease) == len(DATA), "no byte was fetched twice"


def test_passing_faults_are_borne_and_not_repeated_for_ever(world, storage, fault, monkeypatch):
    fault("GET", "in%2Frows", status=503, times=2)
    fault("GET", "in%2Frows", status=429)
    assert b"".join(storage.read(world.reads, 0, len(DATA))) == DATA
    monkeypatch.setattr(storage_module, "PATIENCE_S", 0.5)
    fault("GET", "in%2Frows", status=503, times=1000)
    with pytest.raises(TryAgain, match="HTTP 503 after"):
        list(storage.read(world.reads, 0, 10))


def test_sigterm_cuts_a_pause_between_tries_short(world, storage, fault, interruption):
    fault("GET", "in%2Frows", status=503, before=interruption.request, times=1000)
    with pytest.raises(Interrupted):
        list(storage.read(world.reads, 0, 10))


def test_a_redirect_is_not_followed_with_our_token(world, storage, fault):
    fault("GET", "in%2Frows", status=302, location=f"{world.url}/elsewhere")
    with pytest.raises(FailedPrecondition, match="HTTP 302"):
        list(storage.read(world.reads, 0, 10))
    assert not world.asked("GET", "/elsewhere")


def test_a_proxy_of_the_environment_does_not_see_our_token(world, lease, monkeypatch):
    monkeypatch.setitem(os.environ, "HTTP_PROXY", "http://127.0.0.1:9")
    storage = Storage(lease, url=world.url, wait=Interruption().wait)
    assert b"".join(storage.read(world.reads, 0, 10)) == DATA[:10]


# --- writing --------------------------------------------------------------------------------------


def test_a_small_object_is_created_in_one_request(world, output):
    stored = output.create("epoch-1/a.json", b"{}", "application/json")
    assert world.content("epoch-1/a.json") == b"{}"
    assert stored.md5_hash == b64encode(md5(b"{}", usedforsecurity=False).digest()).decode()
    assert len(world.asked("POST", "/upload/")) == 1


@pytest.mark.usefixtures("small_chunks")
def test_a_large_object_is_created_in_chunks(world, output):
    output.create("big", DATA + b"tail", "application/octet-stream")
    assert world.content("big") == DATA + b"tail"
    assert len(world.asked("PUT", "upload_id")) == 5


@pytest.mark.usefixtures("small_chunks")
def test_a_large_upload_goes_on_after_faults_from_where_the_server_got(world, output, fault):
    fault("PUT", "upload_id", status=503)
    fault("PUT", "upload_id", cut_after=0)  # the chunk arrived, its answer did not
    fault("PUT", "upload_id", cut_after=0)
    output.create("big", DATA, "application/octet-stream")
    assert world.content("big") == DATA


@pytest.mark.usefixtures("small_chunks")
def test_an_expired_upload_session_is_begun_anew(world, output, fault):
    fault("PUT", "upload_id", status=410)
    output.create("big", DATA, "application/octet-stream")
    assert world.content("big") == DATA
    assert len(world.sessions) == 2


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("content", [b"small", DATA], ids=["whole", "in-chunks"])
def test_an_object_whose_answer_was_lost_is_recognised_as_ours(world, output, fault, content):
    method = "POST" if content == b"small" else "PUT"
    num_requests = 1 if content == b"small" else 4

    def lose_the_last_answer():
        if len(world.asked(method, "/upload/")) >= num_requests - 1:
            world.faults[0].cut_after = 0

    fault(method, "/upload/", before=lose_the_last_answer, times=num_requests)
    stored = output.create("thing", content, "application/octet-stream")
    assert world.created == ["out/job-1/thing"]
    assert stored.generation == str(world.live["out/job-1/thing"])


def test_an_object_of_somebody_else_is_never_overwritten(world, output):
    world.put("out/job-1/thing", b"theirs")
    with pytest.raises(AlreadyExists, match="it stays as it is"):
        output.create("thing", b"ours", "text/plain")
    assert world.content("thing") == b"theirs"


def test_creating_outside_the_prefix_is_refused_by_the_token(world, storage):
    elsewhere = Output(storage, OutputPrefix(bucket="acme-data", prefix="out/job-2/"))
    with pytest.raises(AccessDenied, match=r"roles/storage\.objectCreator"):
        elsewhere.create("thing", b"", "text/plain")
    assert world.created == []


def test_what_is_not_there_is_looked_for_once_though_the_answer_is_403(world, output):
    assert output.find("manifest.json") is None
    assert [one.status for one in world.asked("GET", "manifest.json")] == [403]
    assert len(world.tokens) == 1


def test_our_own_object_is_read_back_and_not_counted_as_the_customers(output, lease):
    output.create("thing", DATA, "application/octet-stream")
    assert output.read_back(output.find("thing")) == DATA
    assert counted(lease) == 0
