"""`sublet verify receipt FILE`: offline, and with an exit code for a script."""

import json

import pytest
from click.testing import CliRunner

from sublet.cli.main import sublet
from sublet.signing import Ed25519Signer, new_private_key
from sublet.statements import RECEIPT, Statement, signed_bytes

CONTENT = {"job": "accounts/acme/jobs/j", "externalUrl": "gs://b/o", "accessIsRefused": True}


def signed(kind: str = RECEIPT, content=CONTENT) -> Statement:
    signer = Ed25519Signer(new_private_key())
    signature = signer.sign(signed_bytes(kind, content))
    return Statement(kind=kind, content=content, public_key=signer.public_key, signature=signature)


@pytest.fixture
def check(tmp_path):
    def run(text: str, *options: str):
        file = tmp_path / "receipt.json"
        file.write_text(text)
        return CliRunner().invoke(sublet, ["verify", "receipt", str(file), *options])

    return run


def test_a_receipt_of_the_expected_signer_is_shown(check):
    statement = signed()
    done = check(statement.to_text(), "--key", statement.key_fingerprint)
    assert done.exit_code == 0
    assert "Signature: VALID" in done.output and "Signer Is: AS EXPECTED" in done.output
    assert "External Url: gs://b/o" in done.output and "Access Is Refused: true" in done.output


def test_without_the_signers_fingerprint_it_says_that_nobody_compared_it(check):
    done = check(signed().to_text())
    assert done.exit_code == 0 and "NOT COMPARED: give --key" in done.output


def test_what_the_api_answered_is_taken_as_well(check):
    statement = signed()
    answer = {"job": "accounts/acme/jobs/j", "signedReceipt": statement.to_text()}
    done = check(json.dumps(answer), "-o", "json")
    assert json.loads(done.output)["signer"] == statement.key_fingerprint


def test_a_key_that_is_no_key_is_refused_in_words(check, tmp_path):
    (tmp_path / "key.pem").write_text(
        "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"
    )
    done = check(signed().to_text(), "--key", str(tmp_path / "key.pem"))
    assert done.exit_code == 1 and "no Ed25519 public key in PEM" in done.output


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (signed().to_text().replace("gs://b/o", "gs://b/p"), (), "was changed"),
        (signed().to_text(), ("--key", "0" * 64), "expected 0000"),
        (signed(kind="dev.sublet.other.v1").to_text(), (), "expected a dev.sublet.receipt.v2"),
        (json.dumps({"job": "j", "signedReceipt": ""}), (), "not signed yet"),
        ("not json", (), "no signed statement"),
    ],
    ids=["changed", "another signer", "another kind", "not signed yet", "no receipt"],
)
def test_what_is_no_receipt_of_the_signer_is_refused_in_words(check, text, options, words):
    done = check(text, *options)
    assert done.exit_code == 1
    assert words in done.output
