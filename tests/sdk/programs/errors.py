"""Each error of the API, as the class that its user catches; final ones without a retry's delay."""

import time

import fireworks
from flavours import client as make_client
from flavours import run


async def errors(client, bucket, other):
    asked = {"external_url": f"gs://{bucket}/data/train.jsonl"}
    await client.datasets.create(dataset_id="mine", dataset=asked)
    jobs = client.supervised_fine_tuning_jobs
    base = "accounts/fireworks/models/tiny-random"

    async def duplicate():
        elsewhere = {"external_url": f"gs://{bucket}/data/other.jsonl"}
        return await client.datasets.create(dataset_id="mine", dataset=elsewhere)

    async def unknown_key():
        return await make_client(api_key="sk-nobody").datasets.list()

    expected = [
        (duplicate, fireworks.ConflictError, 409, 6),
        (unknown_key, fireworks.AuthenticationError, 401, 16),
        (lambda: client.datasets.list(account_id=other), fireworks.PermissionDeniedError, 403, 7),
        (lambda: client.datasets.get("missing"), fireworks.NotFoundError, 404, 5),
        (lambda: client.datasets.get("Not An Id"), fireworks.BadRequestError, 400, 3),
        (lambda: jobs.list(filter="a > b"), fireworks.BadRequestError, 400, 3),
        (lambda: jobs.create(dataset="mine"), fireworks.BadRequestError, 400, 3),
        (
            lambda: jobs.create(dataset="mine", base_model=base, warm_start_from="m"),
            fireworks.BadRequestError,
            400,
            3,
        ),
        (
            lambda: client.datasets.get_download_endpoint("mine"),
            fireworks.BadRequestError,
            400,
            9,
        ),
        (
            lambda: client.reinforcement_fine_tuning_steps.create(dataset="mine"),
            fireworks.InternalServerError,
            501,
            12,
        ),
        (
            lambda: client.dpo_jobs.create(dataset="mine"),
            fireworks.InternalServerError,
            501,
            12,
        ),
        (client.deployments.list, fireworks.InternalServerError, 501, 12),
    ]
    for attempt, kind, status, code in expected:
        await check(attempt, kind, status, code)


async def check(attempt, kind, status, code):
    started = time.monotonic()
    try:
        answer = await attempt()
    except fireworks.APIStatusError as error:
        assert type(error) is kind and error.status_code == status, error
        assert set(error.body) == {"code", "message", "details"}, error.body
        assert error.body["code"] == code and error.body["message"], error
        took = time.monotonic() - started
        assert took < 0.45, f"{error} took {took:.2f} s: the client has retried"
    else:
        raise AssertionError(f"expected {kind.__name__}, got {answer}")


run(errors)
