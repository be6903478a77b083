"""Reinforcement steps and preference jobs: asked for, shown, listed, cancelled, deleted."""

from flavours import every
from secure_flow import BASE, eventually


async def reinforce_and_prefer(tenant):
    """Neither gets as far as training; a step's is in tests/cli/test_readme.py."""
    client = tenant.client
    rewarded = {"external_url": f"gs://{tenant.bucket}/rl/rewarded.jsonl"}
    dataset = await eventually(
        lambda: client.datasets.create(dataset_id="rewarded", dataset=rewarded)
    )
    assert dataset.format == "RL", dataset
    training = {"base_model": BASE, "output_model": "improved", "epochs": 1, "lora_rank": 8}
    steps = client.reinforcement_fine_tuning_steps
    made = await steps.create(
        rlor_trainer_job_id="step",
        dataset=dataset.name,
        training_config=training,
        reward_weights=["score"],
        loss_config={"method": "GRPO", "kl_beta": 0.01},
    )
    assert made.name.endswith("/rlorTrainerJobs/step") and made.reward_weights == ["score=1"], made
    assert (made.loss_config.method, made.loss_config.kl_beta) == ("GRPO", 0.01)
    assert (made.training_config.base_model, made.training_config.epochs) == (BASE, 1)
    assert [one.name for one in await every(await steps.list())] == [made.name]
    assert await steps.cancel("step", body={}) == {}
    assert (await steps.get("step")).state == "JOB_STATE_CANCELLED"
    assert await steps.delete("step") == {}

    preferred = {"external_url": f"gs://{tenant.bucket}/dpo/preferred.jsonl"}
    dataset = await eventually(
        lambda: client.datasets.create(dataset_id="preferred", dataset=preferred)
    )
    made = await client.dpo_jobs.create(
        dpo_job_id="dpo",
        dataset=dataset.name,
        training_config=training,
        loss_config={"method": "DPO", "dpo": {"beta": 0.2}},
    )
    assert (made.loss_config.method, made.loss_config.dpo.beta) == ("DPO", 0.2), made
    assert await client.dpo_jobs.cancel("dpo", body={}) == {}
    assert (await client.dpo_jobs.get("dpo")).state == "JOB_STATE_CANCELLED"
    assert await client.dpo_jobs.delete("dpo") == {}
    for name in ("rewarded", "preferred"):
        assert await client.datasets.delete(name) == {}
