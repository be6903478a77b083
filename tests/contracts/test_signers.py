"""
A key at hand and a key in Cloud KMS sign alike; the second is asked for over HTTP, and whatever
happens on the way, a receipt is signed whole or not yet.
"""

import pytest
from click.testing import CliRunner
from cloud_kms import KEY, OTHER_KIND, Caller, Kms, public_pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sublet.cli.main import sublet
from sublet.delivery import SignedReceipt
from sublet.errors import AccessDenied, FailedPrecondition, SubletError, TryAgain
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.kms import KmsSigner
from sublet.signing import Ed25519Signer, new_private_key, verify_statement
from sublet.statements import RECEIPT, ForgedStatement, Statement, parse_statement, signed_bytes

MESSAGE = b"what is signed"


@pytest.fixture(scope="module")
def running():
    kms = Kms()
    yield kms
    kms.stop()


@pytest.fixture
def kms(running):
    running.faults, running.disabled, running.num_signed = [], set(), 0
    return running


def signer_of(kms: Kms, version: str = KEY, **caller: str) -> KmsSigner:
    return KmsSigner(version, Caller(**caller), Endpoints(kms=kms.url))


@pytest.fixture(params=["at hand", "in Cloud KMS"])
def signer(request, kms):
    return Ed25519Signer(new_private_key()) if request.param == "at hand" else signer_of(kms)


def test_what_it_signs_is_verified_by_its_public_half(signer):
    content = {"a": "b" * 100_000}
    signature = signer.sign(signed_bytes(RECEIPT, content))
    statement = Statement(
        kind=RECEIPT, content=content, public_key=signer.public_key, signature=signature
    )
    verify_statement(parse_statement(statement.to_text()))
    other = Ed25519Signer(new_private_key()).public_key
    with pytest.raises(ForgedStatement):
        verify_statement(
            Statement(kind=RECEIPT, content=content, public_key=other, signature=signature)
        )


def test_what_is_sent_to_be_signed_is_small_however_long_the_receipt_is():
    assert len(signed_bytes(RECEIPT, {"readings": ["x" * 1000] * 1000})) < 100


# --- on the wire ----------------------------------------------------------------------------------


def first_letter_changed(field: str):
    return lambda answer: {field: ("B" if answer[field][0] != "B" else "C") + answer[field][1:]}


@pytest.mark.parametrize(
    "damage",
    [
        first_letter_changed("signature"),
        lambda _: {"signatureCrc32c": "0"},
        lambda _: {"signatureCrc32c": None},
        lambda _: {"verifiedDataCrc32c": False},
        lambda _: {"name": OTHER_KIND},
    ],
    ids=["signature", "checksum", "no checksum", "data not checked", "another key"],
)
def test_a_signature_that_was_damaged_on_its_way_is_asked_for_again(kms, damage):
    signer = signer_of(kms)
    kms.faults = [damage]
    with pytest.raises(TryAgain):
        signer.sign(MESSAGE)
    load_pem_public_key(kms.pem().encode()).verify(signer.sign(MESSAGE), MESSAGE)


@pytest.mark.parametrize("damage", [first_letter_changed("pem"), lambda _: {"pemCrc32c": "0"}])
def test_a_public_key_that_was_damaged_on_its_way_is_asked_for_again(kms, damage):
    signer = signer_of(kms)
    kms.faults = [damage]
    with pytest.raises(TryAgain):
        _ = signer.public_key
    assert signer.public_key == kms.keys[KEY].public_key().public_bytes_raw()


def test_what_was_damaged_on_its_way_there_is_not_signed(kms, monkeypatch):
    """The checksum that is sent is that of the message; Cloud KMS compares."""
    monkeypatch.setattr("sublet.gcp.kms.b64encode", lambda _: b"AAAA")
    with pytest.raises(SubletError, match="data_crc32c did not match"):
        signer_of(kms).sign(MESSAGE)
    assert kms.num_signed == 0


def test_somebody_who_is_not_the_broker_gets_no_signature(kms):
    with pytest.raises(AccessDenied, match="useToSign"):
        signer_of(kms, token="a-functions-token").sign(MESSAGE)
    assert kms.num_signed == 0


def test_a_key_of_another_kind_is_refused_with_what_to_make_instead(kms):
    with pytest.raises(FailedPrecondition, match="ec-sign-ed25519"):
        _ = signer_of(kms, OTHER_KIND).public_key


# --- until it is signed ---------------------------------------------------------------------------


@pytest.fixture
def finished(world, kms):
    """A training whose access has ended, of a deployment whose key is in Cloud KMS."""
    world.announce(world.drop())
    world.deliver()
    trainer = world.container()
    trainer.claim()
    world.delivery._signer = signer_of(kms)
    trainer.finish()
    return world


def break_for(kms: Kms, how: str) -> None:
    match how:
        case "it is out of reach":
            kms.faults = [503]
        case "the version is disabled":
            kms.disabled.add(KEY)
        case "the answer is damaged":
            kms.faults = [lambda _: {"pemCrc32c": "0"}]


@pytest.mark.parametrize(
    ("how", "raised", "words"),
    [
        ("it is out of reach", TryAgain, "The service is unavailable"),
        ("the version is disabled", FailedPrecondition, "is not enabled, current state is: DIS"),
        ("the answer is damaged", TryAgain, "was damaged on its way"),
    ],
)
def test_a_receipt_is_owed_until_the_key_can_sign_it(finished, kms, how, raised, words):
    break_for(kms, how)
    with pytest.raises(raised, match=words):
        finished.deliver()
    assert finished.lease_of().owes_receipt and finished.all(SignedReceipt) == []
    kms.disabled.clear()
    finished.advance(minutes=1)
    assert finished.sweep.run().repairs == {"receipt delivered": 1}
    statement = parse_statement(finished.the(SignedReceipt).text)
    verify_statement(statement)
    assert kms.num_signed == 1 and not finished.lease_of().owes_receipt


def test_a_key_version_that_is_not_there_is_no_reason_to_forget_the_receipt(finished, kms):
    """A 404 of the key is not a 404 of the job, which its owner may have deleted."""
    finished.delivery._signer = signer_of(kms, f"{KEY}7")
    with pytest.raises(FailedPrecondition, match="not found"):
        finished.deliver()
    assert finished.lease_of().owes_receipt
    finished.advance(minutes=1)
    (failure,) = finished.sweep.run().failures
    assert "nothing is signed until" in failure


def test_the_owner_checks_a_receipt_with_what_gcloud_prints_of_the_key(finished, kms, tmp_path):
    """From the key in Cloud KMS to the file in the bucket: offline, with the PEM alone."""
    finished.deliver()
    receipt = finished.lease_of().receipt_object
    ((_, text),) = finished.cloud.buckets["acme-data"].generations[receipt].items()
    key, file = tmp_path / "key.pem", tmp_path / "receipt.json"
    key.write_text(kms.pem())
    file.write_bytes(text)
    checked = CliRunner().invoke(sublet, ["verify", "receipt", str(file), "--key", str(key)])
    assert checked.exit_code == 0 and "Signer Is: AS EXPECTED" in checked.output
    key.write_text(public_pem(Ed25519PrivateKey.generate()))
    checked = CliRunner().invoke(sublet, ["verify", "receipt", str(file), "--key", str(key)])
    assert checked.exit_code == 1 and "expected" in checked.output
