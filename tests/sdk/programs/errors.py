"""Each error of the API, as the class that its user catches; final ones are not asked again."""

import fireworks


async def raise_every_error(tenant, other):
    client, jobs = tenant.client, tenant.client.supervised_fine_tuning_jobs
    base = "accounts/fireworks/models/tiny-random"
    elsewhere = {"external_url": f"gs://{tenant.bucket}/other/other.jsonl"}
    dapo = {"method": "DAPO", "kl_beta": 0.1}
    steps = client.reinforcement_fine_tuning_steps
    step = {"dataset": "secure-sft", "training_config": {"base_model": base}}
    expected = [
        (
            lambda: client.datasets.create(dataset_id="secure-sft", dataset=elsewhere),
            fireworks.ConflictError,
            409,
            6,
        ),
        (tenant.client_of("sk-nobody").datasets.list, fireworks.AuthenticationError, 401, 16),
        (lambda: client.datasets.list(account_id=other), fireworks.PermissionDeniedError, 403, 7),
        (lambda: client.datasets.get("missing"), fireworks.NotFoundError, 404, 5),
        (lambda: client.datasets.get("Not An Id"), fireworks.BadRequestError, 400, 3),
        (lambda: jobs.create(dataset="secure-sft"), fireworks.BadRequestError, 400, 3),
        (
            lambda: jobs.create(dataset="secure-sft", base_model=base, warm_start_from="m"),
            fireworks.BadRequestError,
            400,
            3,
        ),
        (lambda: client.datasets.delete("secure-sft"), fireworks.BadRequestError, 400, 9),
        (
            lambda: client.datasets.get_download_endpoint("secure-sft"),
            fireworks.BadRequestError,
            400,
            9,
        ),
        (lambda: steps.create(loss_config=dapo, **step), fireworks.BadRequestError, 400, 3),
        (lambda: steps.create(**step), fireworks.BadRequestError, 400, 9),
        (lambda: client.dpo_jobs.create(**step), fireworks.BadRequestError, 400, 9),
        (lambda: steps.create(keep_alive=True), fireworks.InternalServerError, 501, 12),
        (client.deployments.list, fireworks.InternalServerError, 501, 12),
    ]
    for attempt, kind, status, code in expected:
        await check(attempt, kind, status, code)


async def check(attempt, kind, status, code):
    try:
        answer = await attempt()
    except fireworks.APIStatusError as error:
        assert type(error) is kind and error.status_code == status, error
        assert set(error.body) == {"code", "message", "details"}, error.body
        assert error.body["code"] == code and error.body["message"], error
        assert error.response.request.headers["x-stainless-retry-count"] == "0", error
    else:
        raise AssertionError(f"expected {kind.__name__}, got {answer}")
