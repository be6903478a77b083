"""
Promise 2: the data is never copied to our storage or disk: read by generation, streamed to memory.
"""

import json

from running_stack import rows

CANARY = "canary-that-must-stay-in-the-bucket"


def test_no_row_of_a_dataset_is_found_anywhere_but_in_the_bucket(stack):
    tenant = stack.tenant()
    job = tenant.job_of(tenant.drop(rows(text=CANARY)))
    assert job["state"] == "JOB_STATE_COMPLETED"
    tenant.ended_lease(job)
    found = [
        path
        for path in stack.directory.rglob("*")
        if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    blobs = stack.directory / "storage" / "blobs"
    assert found
    assert all(blobs in path.parents for path in found), found


def test_the_pinned_generation_is_what_is_trained_on_even_if_it_is_overwritten(stack):
    tenant = stack.tenant()
    first = tenant.drop(rows(count=12))
    job = tenant.job_of(first, "PENDING", "RUNNING")
    second = tenant.drop(rows(count=34))
    assert job["state"] != "JOB_STATE_COMPLETED", "it was over before it could be overwritten"
    done = tenant.job_of(first)
    assert done["state"] == "JOB_STATE_COMPLETED", done
    manifest = tenant.manifest(done)
    assert manifest["dataset"]["object"]["generation"] == str(first.generation)
    assert manifest["dataset"]["rows"]["num_rows"] == 12
    tenant.dataset_of(second)


def test_the_receipt_accounts_for_every_byte_that_was_read(stack):
    tenant = stack.tenant()
    data = rows()
    blob = tenant.drop(data)
    job = tenant.job_of(blob)
    tenant.ended_lease(job)
    receipt = tenant.get(f"{job['name'].split('/', 2)[2]}:receipt")
    verification, training = receipt["readings"]
    assert receipt["externalGeneration"] == str(blob.generation)
    assert receipt["externalCrc32c"] == blob.crc32c
    assert int(verification["bytesRead"]) == len(data) + 1
    assert int(training["bytesRead"]) == len(data)
    assert receipt["accessIsRefused"] is True
    assert "ya29" not in json.dumps(receipt)
