"""Dataset by reference, job to its end, list, cancel, resume, delete, model."""

import asyncio
import time

from fireworks import BadRequestError, InternalServerError, NotFoundError
from flavours import every

SETTINGS = {
    "epochs": 1,
    "batch_size": 4096,
    "learning_rate": 0.001,
    "lora_rank": 8,
    "eval_auto_carveout": True,
    "extra_body": {"loraAlpha": 24, "useRslora": True},
}
BASE = "accounts/fireworks/models/tiny-random"
OVER = ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


async def make_dataset(tenant):
    datasets = tenant.client.datasets
    asked = {"external_url": f"gs://{tenant.bucket}/data/train.jsonl", "display_name": "Secure SFT"}
    made = await eventually(lambda: datasets.create(dataset_id="secure-sft", dataset=asked))
    assert (made.state, made.status.code, made.format) == ("READY", "OK", "CHAT"), made
    assert made.example_count == "20" and made.externalGeneration
    again = await datasets.with_raw_response.create(dataset_id="secure-sft", dataset=asked)
    assert again.retries_taken == 0, "a create may be repeated, and is answered at once"
    assert await datasets.get("secure-sft") == made
    assert await datasets.get(made.name) == made, "a full name is an id too"
    folder = {"external_url": f"gs://{tenant.bucket}/data/"}
    by_folder = await eventually(lambda: datasets.create(dataset_id="by-folder", dataset=folder))
    assert by_folder.external_url == made.external_url
    listed = await every(await datasets.list(page_size=1))
    assert [one.name for one in listed] == [by_folder.name, made.name]
    assert await datasets.delete("by-folder") == {}
    masked = await datasets.get("secure-sft", read_mask="name,state")
    assert masked.state == "READY" and masked.external_url is None
    renamed = await datasets.update("secure-sft", display_name="Renamed")
    assert renamed.display_name == "Renamed"
    return renamed


async def start_cancel_and_resume(tenant, dataset):
    """One training run, which starts at the second time of asking."""
    jobs = tenant.client.supervised_fine_tuning_jobs
    asked = {
        "dataset": dataset.name,
        "base_model": BASE,
        "output_model": "secure-model",
        "supervised_fine_tuning_job_id": "first",
        **SETTINGS,
    }
    job = await jobs.create(**asked)
    assert job.output_model == dataset.name.replace("datasets/secure-sft", "models/secure-model")
    assert (job.epochs, job.lora_rank, job.learning_rate) == (1, 8, 0.001)
    assert (job.eval_auto_carveout, job.loraAlpha, job.useRslora) == (True, 24, True)
    assert await jobs.cancel("first", body={}) == {}
    assert await jobs.cancel("first", body={}) == {}, "a cancel may be repeated"
    assert (await jobs.get("first")).state == "JOB_STATE_CANCELLED"
    assert (await jobs.create(**asked)).name == job.name, "a create may be repeated"
    resumed = await eventually(lambda: jobs.resume("first", body={}))
    assert resumed.state == "JOB_STATE_CREATING"


async def finished(tenant, job_id):
    jobs = tenant.client.supervised_fine_tuning_jobs
    deadline = time.monotonic() + 90
    while (job := await jobs.get(job_id)).state not in OVER:
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.2)
    assert job.state == "JOB_STATE_COMPLETED", job
    assert job.status.code == "OK" and job.job_progress.percent == 100 and job.completed_time
    assert job.evalLoss > 0
    return job


async def check_model(tenant, job):
    models = tenant.client.models
    model = await models.get(job.output_model)
    assert (model.state, model.kind, model.peft_details.r) == ("READY", "HF_PEFT_ADDON", 8)
    assert model.peft_details.base_model == BASE and model.uri.startswith("gs://")
    try:
        await models.get_download_endpoint("secure-model")
    except BadRequestError as error:
        assert error.body["code"] == 9 and model.uri in error.body["message"]
    else:
        raise AssertionError("there is no URL that we could sign")
    catalogue = await every(await models.list(account_id="fireworks"))
    assert BASE in [base.name for base in catalogue]


async def check_lists(tenant, job):
    jobs = tenant.client.supervised_fine_tuning_jobs
    done = f'state="JOB_STATE_COMPLETED" AND name="{job.name}"'
    assert [found.name for found in await every(await jobs.list(filter=done))] == [job.name]
    assert await every(await jobs.list(filter='state="JOB_STATE_FAILED"')) == []
    (masked,) = await every(await jobs.list(page_size=3, read_mask="name,dataset", order_by="name"))
    assert masked.dataset and masked.state is None


async def delete_everything(tenant):
    client, jobs = tenant.client, tenant.client.supervised_fine_tuning_jobs
    assert await jobs.delete("first") == {}
    assert await every(await jobs.list()) == []
    assert await client.models.delete("secure-model") == {}
    assert await client.datasets.delete("secure-sft") == {}
    try:
        await client.datasets.get("secure-sft")
    except NotFoundError:
        return
    raise AssertionError("a deleted dataset is still there")


async def eventually(attempt):
    """The client itself asks three times; an access may take a little longer to be ended."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await attempt()
        except InternalServerError as error:
            assert error.status_code == 503 and time.monotonic() < deadline, error
