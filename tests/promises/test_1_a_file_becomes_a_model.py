"""Promise 1: a file dropped into a watched bucket becomes a trained model, with no human step."""

import json

from safetensors.numpy import load


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
