"""Dataset by reference, job to its end, list, cancel, resume, delete, model."""

import asyncio
import time

from fireworks import BadRequestError, NotFoundError
from flavours import every, run

SETTINGS = {"epochs": 1, "batch_size": 4096, "learning_rate": 0.001, "lora_rank": 8}
BASE = "accounts/fireworks/models/tiny-random"


async def flow(client, bucket):
    dataset = await make_dataset(client, bucket)
    job = await train(client, dataset)
    await check_model(client, job)
    await check_lists(client, dataset)
    await cancel_and_resume(client, dataset)
    await delete_everything(client, dataset)


async def make_dataset(client, bucket):
    asked = {"external_url": f"gs://{bucket}/data/train.jsonl", "display_name": "Secure SFT"}
    made = await client.datasets.create(dataset_id="secure-sft", dataset=asked)
    assert (made.state, made.status.code, made.format) == ("READY", "OK", "CHAT"), made
    assert made.example_count == "20" and made.externalGeneration
    started = time.monotonic()
    again = await client.datasets.create(dataset_id="secure-sft", dataset=asked)
    assert again == made and time.monotonic() - started < 0.5
    assert await client.datasets.get("secure-sft") == made
    assert await client.datasets.get(made.name) == made, "a full name is an id too"
    folder = {"external_url": f"gs://{bucket}/data/"}
    by_folder = await client.datasets.create(dataset_id="by-folder", dataset=folder)
    assert by_folder.external_url == made.external_url
    assert await client.datasets.delete("by-folder") == {}
    masked = await client.datasets.get("secure-sft", read_mask="name,state")
    assert masked.state == "READY" and masked.external_url is None
    renamed = await client.datasets.update("secure-sft", display_name="Renamed")
    assert renamed.display_name == "Renamed"
    return renamed


async def train(client, dataset):
    jobs = client.supervised_fine_tuning_jobs
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
    assert (await jobs.create(**asked)).name == job.name, "a create may be repeated"
    job = await finished(jobs, "first")
    assert job.state == "JOB_STATE_COMPLETED", job
    assert job.status.code == "OK" and job.job_progress.percent == 100 and job.completed_time
    return job


async def check_model(client, job):
    model = await client.models.get(job.output_model)
    assert (model.state, model.kind, model.peft_details.r) == ("READY", "HF_PEFT_ADDON", 8)
    assert model.peft_details.base_model == BASE and model.uri.startswith("gs://")
    try:
        await client.models.get_download_endpoint("secure-model")
    except BadRequestError as error:
        assert error.body["code"] == 9 and model.uri in error.body["message"]
    else:
        raise AssertionError("there is no URL that we could sign")
    catalogue = await every(await client.models.list(account_id="fireworks"))
    assert BASE in [base.name for base in catalogue]


async def check_lists(client, dataset):
    jobs = client.supervised_fine_tuning_jobs
    for number in range(3):
        await jobs.create(
            dataset=dataset.name,
            base_model=BASE,
            supervised_fine_tuning_job_id=f"more-{number}",
            **SETTINGS,
        )
    listed = await every(await jobs.list(page_size=2))
    assert [job.name.rpartition("/")[2] for job in listed] == [
        "more-2",
        "more-1",
        "more-0",
        "first",
    ]
    by_name = await every(await jobs.list(page_size=1, order_by="name"))
    assert [job.name for job in by_name] == sorted(job.name for job in listed)
    done = await every(
        await jobs.list(filter=f'state="JOB_STATE_COMPLETED" AND name="{listed[-1].name}"')
    )
    assert [job.name for job in done] == [listed[-1].name]
    masked = await every(await jobs.list(page_size=3, read_mask="name,dataset"))
    assert len(masked) == 4 and masked[0].state is None


async def cancel_and_resume(client, dataset):
    jobs = client.supervised_fine_tuning_jobs
    for number in range(3):
        await jobs.cancel(f"more-{number}", body={})
        await jobs.cancel(f"more-{number}", body={})
    cancelled = await jobs.get("more-2")
    if cancelled.state == "JOB_STATE_CANCELLED":
        resumed = await eventually(lambda: jobs.resume("more-2", body={}))
        assert resumed.state == "JOB_STATE_CREATING"
        resumed = await finished(jobs, "more-2")
        assert resumed.state == "JOB_STATE_COMPLETED", resumed
    assert (await client.models.get("more-2")).state == "READY"


async def delete_everything(client, dataset):
    jobs = client.supervised_fine_tuning_jobs
    for job in await every(await jobs.list()):
        assert await jobs.delete(job.name.rpartition("/")[2]) == {}
    assert await every(await jobs.list()) == []
    for model in await every(await client.models.list()):
        await client.models.delete(model.name.rpartition("/")[2])
    assert await client.datasets.delete("secure-sft") == {}
    try:
        await client.datasets.get("secure-sft")
    except NotFoundError:
        return
    raise AssertionError("a deleted dataset is still there")


async def finished(jobs, job_id):
    deadline = time.monotonic() + 90
    over = ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
    while (job := await jobs.get(job_id)).state not in over:
        assert time.monotonic() < deadline, job
        await asyncio.sleep(0.2)
    return job


async def eventually(attempt):
    """The client itself asks three times; an access may take a little longer to be ended."""
    from fireworks import InternalServerError

    deadline = time.monotonic() + 30
    while True:
        try:
            return await attempt()
        except InternalServerError as error:
            assert error.status_code == 503 and time.monotonic() < deadline, error


run(flow)
