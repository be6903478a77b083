"""Attacks by what a file contains."""

import ast
import gzip
import json
import logging
import pickle
from pathlib import Path

import pytest
from attacks.catalogue import attack
from memory_world import rows
from safetensors import SafetensorError
from safetensors.numpy import load

from sublet.accounts import Account
from sublet.audit import AuditEntry
from sublet.buckets import PinnedBucket
from sublet.codec import encode
from sublet.datasets import Dataset
from sublet.delivery import SignedReceipt
from sublet.errors import SubletError
from sublet.jobs import Job, JobState
from sublet.leases import DataAccount, Lease
from sublet.local.iam.service_accounts import service_account_resource
from sublet.names import Generation, ObjectVersion

ROOT = Path(__file__).parents[2]
KEPT = (Account, AuditEntry, DataAccount, Dataset, Job, Lease, PinnedBucket, SignedReceipt)
RUNS_CODE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("payload-ran"),))


@attack(
    17,
    "a checkpoint or a base model that runs code when it is loaded",
    stopped_by="safetensors only: nothing in the trainer can unpickle, no code of a model is "
    "run, base models are held to digests of ours",
)
def test_malicious_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SafetensorError):
        load(pickle.dumps(Payload()))
    sources = sorted((ROOT / "trainer" / "sublet_trainer").rglob("*.py"))
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            assert not (isinstance(node, ast.Import | ast.ImportFrom) and _imports(node)), source
            if isinstance(node, ast.Attribute):
                assert (getattr(node.value, "id", ""), node.attr) != ("torch", "load"), source
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, source
    assert len(sources) > 10

    assert not list(tmp_path.iterdir())
    from safetensors.numpy import save

    assert load(save({})) == {}


def _imports(node) -> bool:
    names = {alias.name.partition(".")[0] for alias in node.names}
    module = getattr(node, "module", None) or ""
    return bool((names | {module.partition(".")[0]}) & RUNS_CODE)


LINE = b'{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
HOSTILE = {
    "an endless line": b'{"messages": "' + b"x" * (3 * 2**20),
    "depth": b"[" * 100_000 + b"\n",
    "an endless integer": b'{"messages": ' + b"9" * 50_000 + b"}\n",
    "not a number": b'{"messages": NaN}\n',
    "a key twice": b'{"prompt": "a", "prompt": 7, "completion": "b"}\n',
    "not UTF-8": b'{"prompt": "\xff\xfe", "completion": "b"}\n',
    "an empty list": b'{"messages": []}\n',
}


@attack(
    18,
    "rows that break the reader: endless lines, depth, huge numbers, doubled keys, compression",
    stopped_by="a streaming parser in bounded memory that names line and reason; a compressed "
    "object is refused, since offsets and checksum would not be those of the rows",
)
def test_malicious_rows(world):
    for what, data in HOSTILE.items():
        dataset = world.announce(world.drop(LINE * 3 + data, name="data/hostile.jsonl"))
        assert dataset.status.code == "INVALID_ARGUMENT", what
        assert dataset.status.message.startswith("line 4: "), (what, dataset.status.message)
        world.advance(minutes=2)
    marked = world.drop(b"\xef\xbb\xbf" + LINE * 3, name="data/marked.jsonl")
    assert world.announce(marked).status.message.startswith("line 1: ")
    world.advance(minutes=2)
    blob = world.cloud.bucket("acme-data").blob("data/bomb.jsonl")
    blob.content_encoding = "gzip"
    blob.upload_from_string(gzip.compress(b"0" * 2**24))
    bomb = ObjectVersion(
        bucket="acme-data", object=blob.name, generation=Generation(blob.generation)
    )
    assert "Content-Encoding gzip" in world.announce(bomb).status.message
    world.advance(minutes=2)

    assert world.announce(world.drop(rows(9), name="data/good.jsonl")).rows.num_rows == 9


@attack(
    19,
    "a secret or a row leaks through a log, an error, a record or an event",
    stopped_by="tokens have no repr and stand in no record but sealed; reasons name a line and "
    "never quote it; errors of Google's libraries are logged by type",
    stays_open="what a trainer's dependencies print is not ours; the promise tests search "
    "their logs",
)
def test_secret_leak(world, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    canary = "canary-row-4711"
    bad = json.dumps({"messages": canary}).encode() + b"\n"
    spoken = [repr(world.announce(world.drop(bad, name="data/bad.jsonl")))]
    world.advance(minutes=2)
    good = json.dumps({"prompt": canary, "completion": canary}).encode() + b"\n"
    world.announce(world.drop(good * 3))
    world.deliver()
    trainer = world.container()
    spoken.append(repr(trainer.claim()))
    data_account = service_account_resource(world.lease_of().data_account)
    world.cloud.running.do(lambda cloud: cloud.iam.policies.delete(data_account))
    for act in (lambda: trainer.beat(wants_token=True), lambda: trainer.beat(epoch=99)):
        with pytest.raises((SubletError, TypeError)) as error:
            act()
        spoken.append(repr(error.value))
    world.cloud.add_data_account(world.lease_of().data_account)
    trainer.finish(is_success=False, adapter=None, code="INTERNAL", message="line 1: too long")
    world.deliver()
    out, err = capfd.readouterr()
    spoken += [caplog.text, out, err, repr(world.publisher.published)]
    kept = [record for kind in KEPT for record in world.all(kind)]
    assert {type(record) for record in kept} == set(KEPT)
    spoken += [encode(record).decode() for record in kept]
    (token,) = trainer.tokens
    for secret in (canary, token, token.removeprefix("ya29.")):
        assert not [text for text in spoken if secret in text]

    assert world.the(Job).state is JobState.FAILED
    assert "line 1: too long" in "".join(spoken)
    assert world.lease_of().tokens[0].sha256 in "".join(spoken)
