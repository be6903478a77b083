"""
Promise 2: the data is never copied to our storage or disk: read by generation, streamed to memory.
"""

import hashlib
import json

from canaries import ROW_CANARY
from click.testing import CliRunner
from running_stack import NO_ROWS, rows

from sublet.cli.main import sublet
from sublet.signing import Ed25519Signer


def test_no_row_of_a_dataset_is_found_anywhere_but_in_the_bucket(stack, trained):
    assert trained.job["state"] == "JOB_STATE_COMPLETED"
    assert ROW_CANARY.encode() in trained.data
    found = [
        path
        for path in stack.directory.rglob("*")
        if path.is_file() and ROW_CANARY.encode() in path.read_bytes()
    ]
    blobs = stack.directory / "storage" / "blobs"
    assert found
    assert all(blobs in path.parents for path in found), found


def test_the_pinned_generation_is_what_is_trained_on_even_if_it_is_overwritten(stack):
    tenant = stack.tenant()
    first = tenant.drop(rows(count=12))
    job = tenant.job_of(first, "PENDING", "RUNNING")
    second = tenant.drop(NO_ROWS)
    assert job["state"] != "JOB_STATE_COMPLETED", "it was over before it could be overwritten"
    done = tenant.job_of(first)
    assert done["state"] == "JOB_STATE_COMPLETED", done
    manifest = tenant.manifest(done)
    assert manifest["dataset"]["object"]["generation"] == str(first.generation)
    assert manifest["dataset"]["rows"]["num_rows"] == 12
    tenant.dataset_of(second)


def test_the_receipt_accounts_for_every_byte_that_was_read(stack, trained, tmp_path):
    tenant, data, blob, job, _ = trained
    path = f"{job['name'].split('/', 2)[2]}:receipt"
    receipt = tenant.get(path)
    verification, training = receipt["readings"]
    assert receipt["externalGeneration"] == str(blob.generation)
    assert receipt["externalCrc32c"] == blob.crc32c
    assert int(verification["bytesRead"]) == len(data)
    assert int(training["bytesRead"]) == len(data)
    assert receipt["accessIsRefused"] is True
    assert "ya29" not in json.dumps(receipt)
    owned = tenant.until(lambda: receipts_in(tenant))
    assert [text.decode() for text in owned] == [tenant.get(path)["signedReceipt"]]
    (file := tmp_path / "receipt.json").write_bytes(owned[0])
    key = hashlib.sha256(public_key_of(stack)).hexdigest()
    checked = CliRunner().invoke(sublet, ["verify", "receipt", str(file), "--key", key])
    assert checked.exit_code == 0, checked.output
    assert "AS EXPECTED" in checked.output


def receipts_in(tenant) -> list[bytes]:
    found = tenant.bucket.list_blobs(prefix="models/")
    return [blob.download_as_bytes() for blob in found if "/receipt-" in blob.name]


def public_key_of(stack) -> bytes:
    private = (stack.directory / "secrets" / "receipt-key").read_text()
    return Ed25519Signer(private).public_key
