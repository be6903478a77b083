"""Promise 1: a file dropped into a watched bucket becomes a trained model, with no human step."""

import json

import pytest
from running_stack import RunningStack
from safetensors.numpy import load

from sublet.errors import FailedPrecondition
from sublet.local.firestore import GOOGLE_FIRESTORE
from sublet.local.pubsub.external.emulators import find_google_emulator

EMULATORS = {
    "--pubsub=google": find_google_emulator,
    "--registry=firestore": GOOGLE_FIRESTORE.find,
}


def test_a_dropped_file_becomes_an_adapter_in_the_owners_bucket(trained):
    """As the trainer wrote it; tests/trainer/test_run.py shows that peft loads it as it lies."""
    tenant, job = trained.tenant, trained.job
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert job["step"] == job["numSteps"] > 0
    model = tenant.get(f"models/{job['outputModel'].rpartition('/')[2]}")
    assert (model["state"], model["peftDetails"]["r"]) == ("READY", 8)
    folder = model["uri"].removeprefix(f"gs://{tenant.bucket_name}/")
    found = {b.name.removeprefix(folder): b for b in tenant.bucket.list_blobs(prefix=folder)}
    written = {one["name"]: one["md5"] for one in tenant.manifest(job)["files"]}
    assert {name: blob.md5_hash for name, blob in found.items()} == written
    assert json.loads(found["tokenizer_config.json"].download_as_bytes())["chat_template"]
    tensors = load(found["adapter_model.safetensors"].download_as_bytes())
    assert any("lora_B" in name and tensor.any() for name, tensor in tensors.items())


def missing(option: str) -> str:
    """Why that one of Google's emulators is not to be had here; nothing if it is."""
    try:
        EMULATORS[option]()
    except FailedPrecondition as error:
        return str(error)
    return ""


def needs(option: str):
    reason = missing(option)
    return pytest.mark.skipif(bool(reason), reason=reason or "it is here")


@pytest.fixture(scope="module")
def googles_stack(tmp_path_factory):
    """With Google's emulators in the places of ours: those of the two that are installed."""
    options = [option for option in EMULATORS if not missing(option)]
    running = RunningStack(tmp_path_factory.mktemp("googles"), *options)
    yield running
    running.end()


@pytest.fixture(scope="module")
def trained_on_googles(googles_stack):
    return googles_stack.trained()


@needs("--pubsub=google")
def test_it_does_so_on_googles_own_pubsub_emulator(trained_on_googles):
    """Not a line of ours between the bucket and the functions, but for the signature."""
    job = trained_on_googles.job
    assert job["state"] == "JOB_STATE_COMPLETED", job


@needs("--registry=firestore")
def test_it_does_so_with_its_records_in_firestore(googles_stack, trained_on_googles):
    job = trained_on_googles.job
    assert job["state"] == "JOB_STATE_COMPLETED", job
    assert not (googles_stack.directory / "registry.db").exists()


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
