"""The receipt: signed when every access is refused, and put beside the model in its bucket."""

import json
from hashlib import sha256

import pytest
from memory_world import TRAINER

from sublet.audit import AuditEntry
from sublet.delivery import SignedReceipt
from sublet.errors import AccessDenied, InvalidRequest, NotFound, TryAgain
from sublet.jobs import Job
from sublet.leases import Lease, LeaseState, LeaseTerms
from sublet.names import ObjectVersion
from sublet.ports import ExecutionState
from sublet.signing import verify_statement
from sublet.statements import RECEIPT, ForgedStatement, parse_statement


@pytest.fixture
def trainer(world):
    world.version = world.drop()
    world.announce(world.version)
    world.deliver()
    container = world.container()
    container.claim()
    return container


@pytest.fixture
def in_the_bucket(world):
    def receipts() -> list[bytes]:
        generations = world.cloud.buckets["acme-data"].generations
        return [
            data
            for name, versions in generations.items()
            if "/receipt-" in name
            for data in versions.values()
        ]

    return receipts


def test_the_owner_finds_the_signed_receipt_beside_the_model(world, trainer, in_the_bucket):
    trainer.finish(bytes_read=700)
    assert in_the_bucket() == []
    world.deliver()
    (text,) = in_the_bucket()
    statement = parse_statement(text.decode())
    verify_statement(statement)
    assert statement.kind == RECEIPT and statement.public_key == world.signer.public_key
    content, job, dataset = statement.content, world.the(Job), world.version
    assert (content["externalUrl"], content["externalGeneration"]) == (
        dataset.url,
        str(dataset.generation),
    )
    assert (content["job"], content["rowCount"], content["accessIsRefused"]) == (
        job.name,
        "4",
        True,
    )
    for field in ("externalCrc32c", "policySha256", "accountServiceAccount", "worstCases"):
        assert content[field], field
    verification, training = content["readings"]
    assert training["bytesRead"] == "700" and int(verification["bytesRead"]) > 0
    assert training["credential"] == world.lease_of().data_account
    assert training["proof"]["answers"] == "read: 401, create: 401"
    assert training["tokens"][0]["mintTime"] <= training["mintingStopTime"]
    assert trainer.tokens[0] not in text.decode()


def test_it_names_who_held_the_access_with_which_code_and_each_token_by_its_hash(make_world):
    image = f"registry/sublet-trainer@sha256:{'ab' * 32}"
    world = make_world(LeaseTerms(trainer_image=image))
    world.make_account()
    world.make_bucket()
    world.watch()
    world.announce(world.drop())
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.beat(wants_token=True)
    trainer.finish()
    world.deliver()
    _, training = parse_statement(world.the(SignedReceipt).text).content["readings"]
    assert (training["image"], training["numTokens"]) == (image, 2)
    assert training["heldBy"] == f"{TRAINER} in execution-1"
    hashes = [sha256(token.encode()).hexdigest() for token in trainer.tokens]
    assert sorted(token["sha256"] for token in training["tokens"]) == sorted(hashes)


def test_it_is_written_with_no_credential_that_could_read(world, trainer, in_the_bucket):
    """When it is written the last token is refused, and every data account is dark."""
    put = world.uploads.put
    seen = []

    def put_and_look(address, data):
        seen.append(world.opens(trainer.tokens[0], world.version))
        seen.append(set(world.cloud.disabled))
        put(address, data)

    world.uploads.put = put_and_look
    trainer.finish()
    world.deliver()
    assert seen[0] == 401 and len(seen[1]) == 2
    assert len(in_the_bucket()) == 1
    assert world.lease_of().sealed_upload == ""


def test_a_crash_between_the_proof_and_the_delivery_is_mended_by_the_sweep(
    world, trainer, in_the_bucket
):
    put = world.uploads.put
    world.uploads.put = lambda *_: (_ for _ in ()).throw(TryAgain("Cloud Storage is away"))
    trainer.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    signed = world.the(SignedReceipt)
    assert in_the_bucket() == [] and world.lease_of().owes_receipt
    world.uploads.put = put
    world.advance(minutes=1)
    assert world.sweep.run().repairs == {"receipt delivered": 1}
    assert in_the_bucket() == [signed.text.encode()]
    assert not world.sweep.run().repairs


def test_a_delivery_that_is_repeated_writes_nothing_more(world, trainer, in_the_bucket):
    trainer.finish()
    world.deliver()
    before = world.the(SignedReceipt)
    world.delivery.deliver(trainer.lease)
    assert world.the(SignedReceipt) == before and len(in_the_bucket()) == 1
    assert before.delivered_to.startswith("gs://acme-data/models/")


def test_the_delivery_stands_in_the_accounts_audit_log_once(world, trainer):
    trainer.finish()
    world.deliver()
    world.delivery.deliver(trainer.lease)
    entries = [e for e in world.all(AuditEntry) if e.action.method == "DeliverReceipt"]
    assert [world.lease_of().receipt_object in e.action.message for e in entries] == [True]


def test_nothing_is_signed_while_an_access_is_not_refused(world, trainer, in_the_bucket):
    world.cloud.refuses_to_switch = True
    trainer.finish()
    with pytest.raises(TryAgain):
        world.deliver()
    assert world.all(SignedReceipt) == [] and in_the_bucket() == []


def test_nothing_is_signed_until_the_registrations_own_reads_are_refused_as_well(shared):
    """A neighbour's training keeps the tokens of others alive."""
    world, neighbour = shared, shared.trainer
    dataset = world.announce(world.drop(name="data/second.jsonl"))
    world.deliver()
    trainer = world.container("execution-2")
    trainer.claim()
    trainer.finish()
    with pytest.raises(TryAgain, match="not refused yet"):
        world.deliver()
    neighbour.finish()
    world.revocation.attempt(trainer.lease, because="asked again")
    states = {lease.name: lease.state for lease in world.all(Lease)}
    assert states[trainer.lease] is LeaseState.REVOKED
    assert states[dataset.reads_under] is LeaseState.REVOKING
    assert trainer.lease not in {signed.lease for signed in world.all(SignedReceipt)}
    for _ in range(2):
        world.advance(minutes=1)
        world.sweep.run()
    signed = world.registry.get(SignedReceipt, trainer.lease).record
    readings = parse_statement(signed.text).content["readings"]
    assert [reading["refused"] for reading in readings] == [True, True]


def test_a_bucket_that_gives_no_place_leaves_the_receipt_with_us(world, trainer, in_the_bucket):
    trainer.finish()
    world.deliver()
    world.advance(minutes=10)
    world.cloud.remove(next(iter_receipts(world)))
    second = world.drop(name="data/second.jsonl")
    world.announce(second)
    world.deliver()
    world.uploads.open = lambda *_, **__: (_ for _ in ()).throw(AccessDenied("no"))
    other = world.container("execution-2")
    other.claim()
    other.finish()
    world.deliver()
    signed = world.registry.get(SignedReceipt, other.lease).record
    assert signed.delivered_to == "" and in_the_bucket() == []
    verify_statement(parse_statement(signed.text))


def iter_receipts(world):
    for name, versions in world.cloud.buckets["acme-data"].generations.items():
        for generation in versions:
            if "/receipt-" in name:
                yield ObjectVersion(bucket="acme-data", object=name, generation=generation)


def test_a_place_that_is_gone_is_given_up_and_said(world, trainer, in_the_bucket):
    world.uploads.put = lambda *_: (_ for _ in ()).throw(NotFound("a week has passed"))
    trainer.finish()
    world.deliver()
    signed = world.the(SignedReceipt)
    verify_statement(parse_statement(signed.text))
    assert signed.delivered_to == "" and in_the_bucket() == []
    assert not world.lease_of().owes_receipt and world.lease_of().receipt_object == ""
    assert "nowhere" in next(
        e.action.message for e in world.all(AuditEntry) if e.action.method == "DeliverReceipt"
    )


def test_a_job_that_was_deleted_before_its_receipt_owes_none(world, trainer):
    trainer.finish()
    job = world.registry.get(Job, world.the(Job).name)
    world.registry.commit(job.deleted())
    world.revocation.attempt(trainer.lease, because="its job was deleted")
    lease = world.registry.get(Lease, trainer.lease).record
    assert lease.state is LeaseState.REVOKED and not lease.owes_receipt
    assert world.all(SignedReceipt) == []


def test_a_job_that_read_nothing_owes_no_receipt(world):
    world.announce(world.drop())
    world.deliver()
    world.runner.end("execution-1", ExecutionState.FAILED, "no image")
    world.advance(minutes=2)
    world.sweep.run()
    assert world.all(SignedReceipt) == []
    assert not any(lease.owes_receipt for lease in world.all(Lease))


def test_a_holder_cannot_take_the_receipts_name_first(world, trainer):
    """The name ends in what only the broker knows before the receipt lies there."""
    lease = world.lease_of()
    suffix = lease.receipt_object.rpartition("-")[2].removesuffix(".json")
    assert lease.receipt_object.startswith(world.the(Job).output.prefix)
    assert suffix not in lease.name and suffix not in lease.tokens[0].sha256


@pytest.fixture
def signed(world, trainer) -> dict:
    trainer.finish()
    world.deliver()
    return json.loads(world.the(SignedReceipt).text)


def _leaves(value, path=()):
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else None
    )
    if items is None:
        yield path
        return
    for key, item in items:
        yield from _leaves(item, (*path, key))


def test_a_receipt_that_was_changed_anywhere_is_refused(signed):
    paths = list(_leaves(signed))
    assert len(paths) > 60
    for path in paths:
        changed = json.loads(json.dumps(signed))
        *way, last = path
        inner = changed
        for key in way:
            inner = inner[key]
        value = inner[last]
        inner[last] = (
            (not value)
            if isinstance(value, bool)
            else value + 1
            if isinstance(value, int)
            else ("B" if value[:1] == "A" else "A") + value[1:]
        )
        with pytest.raises((ForgedStatement, InvalidRequest)):
            verify_statement(parse_statement(json.dumps(changed)))
    verify_statement(parse_statement(json.dumps(signed, sort_keys=True)))


def test_a_field_that_is_added_taken_away_or_doubled_is_refused(signed):
    more = {**signed, "content": {**signed["content"], "note": "paid"}}
    less = {**signed, "content": {k: v for k, v in signed["content"].items() if k != "readings"}}
    doubled = json.dumps(signed).replace('"content": {', '"content": {"job": "x", ', 1)
    for text in (json.dumps(more), json.dumps(less), doubled):
        with pytest.raises((ForgedStatement, InvalidRequest)):
            verify_statement(parse_statement(text))
