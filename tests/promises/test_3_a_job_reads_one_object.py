"""
Promise 3: a job can read one object, at one generation, and write under one prefix. Nothing else,
but what its owner names beside it: an adapter to begin with, a dataset to be evaluated on.
"""

import json
import sys
from base64 import b64decode
from pathlib import Path

import pytest
import requests
from google.cloud import run_v2
from running_stack import TRAINING_JOB, rows

HOSTILE = Path(__file__).with_name("hostile_trainer.py")


def test_a_job_that_continues_an_adapter_reads_its_tensors_too_and_says_so(stack):
    """Both datasets and the tensors, each at its generation, under one lease; the receipt too."""
    tenant = stack.tenant("--always-on")
    first = tenant.job_of(tenant.drop())
    held_back = tenant.drop(rows(4, text="other"), name="held-back/rows.jsonl")
    url = f"gs://{tenant.bucket_name}/{held_back.name}"
    tenant.post("datasets", {"datasetId": "h", "dataset": {"externalUrl": url}})
    asked = {
        "dataset": first["dataset"],
        "warmStartFrom": first["outputModel"],
        "outputModel": "further",
        "evaluationDataset": "h",
    }
    job = tenant.post("supervisedFineTuningJobs?supervisedFineTuningJobId=further", asked)

    def over():
        found = tenant.get("supervisedFineTuningJobs/further")
        return found if found["state"] in ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED") else None

    ended = tenant.until(over)
    assert ended["state"] == "JOB_STATE_COMPLETED", ended["status"]
    manifests = [tenant.manifest(one) for one in (first, job)]
    tensors = manifests[0]["adapter"]["weights"]
    assert manifests[1]["started_from"]["weights"] == tensors
    losses = [one["eval_loss"] for one in manifests[1]["evaluated"]["losses"]]
    assert ended["evalLoss"] == losses[-1]
    receipt = tenant.get("supervisedFineTuningJobs/further:receipt")
    training = next(one for one in receipt["readings"] if one["purpose"] == "TRAINING")
    assert [one["externalGeneration"] for one in training["readsBeside"]] == [
        tensors["version"]["generation"],
        str(held_back.generation),
    ]
    sizes = (len(rows()), tensors["size_bytes"], held_back.size)
    assert int(training["bytesRead"]) == sum(sizes)


@pytest.fixture
def hostile_trainer(stack):
    """The training job runs the hostile trainer, until the test is over."""
    jobs, _ = stack.run_clients()
    real = jobs.get_job(name=TRAINING_JOB)

    def replace(template: run_v2.TaskTemplate) -> None:
        job = run_v2.Job(name=TRAINING_JOB, template=run_v2.ExecutionTemplate(template=template))
        jobs.update_job(job=job)

    def arm(**variables: str) -> None:
        template = run_v2.TaskTemplate(real.template.template)
        container = run_v2.Container(template.containers[0])
        container.command = [sys.executable, str(HOSTILE)]
        container.env = [
            *container.env,
            *(run_v2.EnvVar(name=k, value=v) for k, v in variables.items()),
        ]
        template.containers = [container]
        replace(template)

    yield arm
    replace(real.template.template)


def test_a_stolen_trainer_opens_nothing_but_its_own_lease(stack, trained, hostile_trainer):
    victim, thief = trained.tenant, stack.tenant()
    thief.bucket.blob("data/train.jsonl.bak").upload_from_string(b"x")
    thief.bucket.blob("other/other.jsonl").upload_from_string(b"x")
    hostile_trainer(
        OTHER_BUCKET=victim.bucket_name,
        OTHER_LEASE=trained.job["lease"],
        DATA_ACCOUNT=thief.get("")["dataServiceAccounts"][0],
        IAM=f"http://127.0.0.1:{stack.ports['iam']}",
    )
    job = thief.job_of(thief.drop())
    log = stack.directory / "logs" / "executions" / f"{job['execution']}-task0.log"
    told = json.loads(log.read_text().splitlines()[0])
    assert told["statuses"] == {
        "read the dataset": 200,
        "read another object": 403,
        "read a name that begins the same": 403,
        "read another bucket": 403,
        "list the bucket": 403,
        "read the policy": 403,
        "delete the dataset": 403,
        "overwrite the dataset": 403,
        "drop a file that would train": 403,
        "write beside its prefix": 403,
        "write under its prefix": 200,
        "overwrite what it wrote": 403,
        "write to another bucket": 403,
        "read as itself": 403,
        "mint for itself": 403,
        "mint with its lease's token": 403,
        "revoke its own lease": 403,
        "open a lease": 403,
        "claim a neighbour's ended lease": 412,
    }
    assert thief.ended_lease(job)["state"] == "REVOKED"
    storage = f"{stack.variables['STORAGE_EMULATOR_HOST']}/storage/v1"
    url = f"{storage}/b/{thief.bucket_name}/o/data%2Ftrain.jsonl"
    answer = requests.get(
        url, headers={"Authorization": f"Bearer {b64decode(told['token']).decode()}"}, timeout=10
    )
    assert answer.status_code == 401
