"""Promise 1: a file dropped into a watched bucket becomes a trained model, with no human step."""

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from sublet.cli.local import _default_models_dir
from sublet.errors import FailedPrecondition
from sublet.local.firestore import GOOGLE_FIRESTORE
from sublet.local.pubsub.external.emulators import find_google_emulator


def test_a_dropped_file_becomes_an_adapter_in_the_owners_bucket(stack, tmp_path):
    tenant = stack.tenant()
    blob = tenant.drop()
    job = tenant.job_of(blob)
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert job["step"] == job["numSteps"] > 0
    model = tenant.get(f"models/{job['outputModel'].rpartition('/')[2]}")
    assert (model["state"], model["peftDetails"]["r"]) == ("READY", 8)
    folder = model["uri"].removeprefix(f"gs://{tenant.bucket_name}/")
    for found in tenant.bucket.list_blobs(prefix=folder):
        found.download_to_filename(tmp_path / found.name.rpartition("/")[2])
    base = AutoModelForCausalLM.from_pretrained(_default_models_dir() / "tiny-random")
    adapted = PeftModel.from_pretrained(base, tmp_path)
    assert any("lora_B" in name and p.abs().sum() > 0 for name, p in adapted.named_parameters())
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template


def test_it_does_so_on_googles_own_pubsub_emulator(own_stack):
    """Not a line of ours between the bucket and the functions, but for the signature."""
    try:
        find_google_emulator()
    except FailedPrecondition as error:
        pytest.skip(str(error))
    stack = own_stack("--pubsub=google")
    tenant = stack.tenant()
    job = tenant.job_of(tenant.drop())
    assert job["state"] == "JOB_STATE_COMPLETED", job


def test_it_does_so_with_its_records_in_firestore(own_stack):
    try:
        GOOGLE_FIRESTORE.find()
    except FailedPrecondition as error:
        pytest.skip(str(error))
    stack = own_stack("--registry=firestore")
    tenant = stack.tenant()
    job = tenant.job_of(tenant.drop())
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert not (stack.directory / "registry.db").exists()


def test_a_file_of_bad_rows_is_kept_as_a_refusal_that_says_which_line(stack):
    tenant = stack.tenant()
    dataset = tenant.dataset_of(tenant.drop(b'{"messages": []}\n' * 3))
    assert dataset["state"] == "UPLOADING"
    assert dataset["status"]["message"].startswith("line 1: ")
    assert tenant.jobs == []


def test_a_bucket_that_lost_a_grant_is_refused_with_the_command_that_mends_it(stack):
    tenant = stack.tenant()
    policy = tenant.bucket.get_iam_policy(requested_policy_version=3)
    policy.bindings = [b for b in policy.bindings if "objectViewer" not in b["role"]]
    tenant.bucket.set_iam_policy(policy)
    dataset = tenant.dataset_of(tenant.drop())
    assert dataset["status"]["code"] == "PERMISSION_DENIED"
    assert "gcloud storage buckets add-iam-policy-binding" in dataset["status"]["message"]
    assert tenant.leases == []
