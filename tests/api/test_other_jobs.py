"""
Reinforcement steps and preference jobs: held to their rules in the words that callers know, and
then jobs like any other, each kind in a collection of its own.
"""

import json

import pytest
from memory_world import rows

from sublet.jobs import Job
from sublet.losses import Loss, LossMethod
from sublet.models import Model

ACME = "/v1/accounts/acme"
BASE = "accounts/fireworks/models/tiny-random"
RLOR, DPO = f"{ACME}/rlorTrainerJobs", f"{ACME}/dpoJobs"
ONE_START = "Only one of 'base_model' or 'warm_start_from' should be specified."
ASKED = [{"role": "user", "content": "q"}]
GROUP = {
    "samples": [
        {"messages": [*ASKED, {"role": "assistant", "content": text}], "evals": {"score": score}}
        for text, score in (("a", 1.0), ("b", 0.0))
    ]
}
PAIR = {
    "input": {"messages": ASKED},
    "preferred_output": [{"role": "assistant", "content": "a"}],
    "non_preferred_output": [{"role": "assistant", "content": "b"}],
}
STEP = {"dataset": "d", "trainingConfig": {"baseModel": BASE, "outputModel": "m"}}


def loss(**config):
    return {**STEP, "lossConfig": config}


def training(**config):
    return {**STEP, "trainingConfig": {**STEP["trainingConfig"], **config}}


@pytest.fixture
def stocked(world, api):
    """Called with a row: the dataset `d` is made of it."""

    def stock(row):
        world.drop(rows() if row is None else (json.dumps(row) + "\n").encode() * 3)
        dataset = {"externalUrl": "gs://acme-data/data/train.jsonl"}
        made = api.post(f"{ACME}/datasets", {"datasetId": "d", "dataset": dataset})
        assert made.is_success, made.text
        return made.json()

    return stock


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (RLOR, STEP, Loss(method=LossMethod.GRPO, reward_weights={"score": 1.0})),
        (
            RLOR,
            {"rlor_trainer_job": {**STEP, "reward_weights": ["score"]}},
            Loss(method=LossMethod.GRPO, reward_weights={"score": 1.0}),
        ),
        (
            RLOR,
            {**loss(method="DAPO", klBeta=0), "rewardWeights": ["score=0.5", "brevity=-1"]},
            Loss(
                method=LossMethod.DAPO,
                kl_beta=0,
                reward_weights={"score": 0.5, "brevity": -1.0},
            ),
        ),
        (
            RLOR,
            {**loss(method="METHOD_UNSPECIFIED", klBeta=0.01), "nodeCount": 1},
            Loss(method=LossMethod.GRPO, kl_beta=0.01, reward_weights={"score": 1.0}),
        ),
        (DPO, STEP, Loss(method=LossMethod.DPO)),
        (DPO, loss(method="DPO", dpo={"beta": 0.2}), Loss(method=LossMethod.DPO, dpo_beta=0.2)),
        (DPO, loss(method="ORPO"), Loss(method=LossMethod.ORPO)),
    ],
)
def test_a_job_is_made_with_the_loss_that_is_asked_for(api, world, stocked, path, body, expected):
    stocked(GROUP if path == RLOR else PAIR)
    made = api.post(path, body)
    assert made.is_success, made.text
    job = world.the(Job)
    assert f"/v1/{job.name}".startswith(f"{path}/")
    assert (job.loss, job.output_model.id) == (expected, "m")
    shown = made.json()
    assert shown["lossConfig"]["method"] == expected.method
    assert shown["trainingConfig"]["outputModel"] == "accounts/acme/models/m"
    assert shown["trainingConfig"]["baseModel"] == BASE


def test_a_step_lives_as_a_supervised_job_does_and_gives_a_model_and_a_receipt(api, world, stocked):
    stocked(GROUP)
    name = api.post(f"{RLOR}?rlorTrainerJobId=s", STEP).json()["name"]
    world.deliver()
    trainer = world.container()
    order = trainer.claim().training
    assert (order.job, order.loss, order.format) == (name, world.the(Job).loss, "RL")
    trainer.finish()
    world.deliver()
    world.advance(hours=1)
    world.sweep.run()
    assert api.get(f"/v1/{name}").json()["state"] == "JOB_STATE_COMPLETED"
    (model,) = (one for one in world.all(Model) if one.job)
    assert api.get(f"/v1/{model.name}").json()["fineTuningJob"] == name
    assert api.get(f"/v1/{name}:receipt").json()["readings"]
    assert api.call("DELETE", f"/v1/{name}").is_success
    assert api.get(f"/v1/{name}").status_code == 404


def test_a_step_is_cancelled_and_resumed_under_its_name(api, world, stocked):
    stocked(GROUP)
    name = api.post(f"{RLOR}?rlorTrainerJobId=s", STEP).json()["name"]
    assert api.post(f"/v1/{name}:cancel", {}).is_success
    assert api.get(f"/v1/{name}").json()["state"] == "JOB_STATE_CANCELLED"
    assert api.post(f"/v1/{name}:resume", {}).json()["state"] == "JOB_STATE_CREATING"


def test_each_kind_of_job_is_listed_in_its_own_collection(api, stocked):
    stocked(GROUP)
    name = api.post(f"{RLOR}?rlorTrainerJobId=s", STEP).json()["name"]
    for key in ("supervisedFineTuningJobs", "rlorTrainerJobs", "dpoJobs"):
        listed = api.get(f"{ACME}/{key}").json()
        assert [one["name"] for one in listed[key]] == [name] * (key == "rlorTrainerJobs")
        assert listed["totalSize"] == len(listed[key])
    assert api.get(f"{ACME}/supervisedFineTuningJobs/s").status_code == 404


@pytest.mark.parametrize(
    ("row", "path", "body", "instead"),
    [
        (GROUP, DPO, STEP, "use rlorTrainerJobs"),
        (PAIR, RLOR, STEP, "use dpoJobs"),
        (None, RLOR, STEP, "use supervisedFineTuningJobs"),
        (
            GROUP,
            f"{ACME}/supervisedFineTuningJobs",
            {"dataset": "d", "baseModel": BASE},
            "use rlorTrainerJobs",
        ),
    ],
)
def test_rows_for_another_kind_of_job_are_refused_in_words(stocked, api, row, path, body, instead):
    stocked(row)
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, 9), answer.text
    assert answer.json()["message"].endswith(instead)


def test_a_dataset_says_which_rows_it_has(stocked):
    assert stocked(GROUP)["format"] == "RL"


def test_preferences_have_no_format_on_the_wire_but_in_the_row_check(stocked):
    dataset = stocked(PAIR)
    assert (dataset["format"], dataset["rowCheck"]["format"]) == (
        "FORMAT_UNSPECIFIED",
        "PREFERENCE",
    )


def test_a_file_of_groups_that_falls_under_a_watch_says_why_it_is_not_trained_on(world):
    world.announce(world.drop((json.dumps(GROUP) + "\n").encode() * 3))
    world.deliver()
    from sublet.datasets import Dataset

    assert world.the(Dataset).status.message.endswith("use rlorTrainerJobs")
    assert not world.all(Job)


@pytest.mark.parametrize(
    ("path", "body", "instead"),
    [
        (RLOR, {"keepAlive": True, "trainingConfig": {"baseModel": BASE}}, "warmStartFrom"),
        (
            RLOR,
            {"serviceMode": True, "trainingConfig": {"baseModel": BASE, "loraRank": 0}},
            "a job for each step",
        ),
        (f"{RLOR}/s:executeTrainStep", {"dataset": "d"}, "a job for each step"),
        (RLOR, {**STEP, "evalAutoCarveout": True}, "sublet rollout"),
        (RLOR, {**STEP, "hotLoadDeploymentId": "d"}, "a server of yours"),
        (RLOR, training(earlyStop=True, epochs=2), "set epochs"),
        (RLOR, training(batchSizeSamples=4), "batchSize"),
        (RLOR, training(loraRank=0), "give a rank"),
        (RLOR, {**STEP, "wandbConfig": {"enabled": True}}, "nobody else"),
        (DPO, loss(method="GRPO"), "use DPO or ORPO"),
    ],
)
def test_what_is_not_offered_is_told_what_to_use_instead(api, path, body, instead):
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (501, 12), answer.text
    assert instead in answer.json()["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (
            RLOR,
            loss(method="DAPO", klBeta=0.1),
            "loss_config.kl_beta must be 0/unset when method is DAPO",
        ),
        (
            RLOR,
            loss(method="GSPO_TOKEN", kl_beta=0.1),
            "loss_config.kl_beta must be 0/unset when method is GSPO_TOKEN",
        ),
        (RLOR, loss(klBeta=-1), "kl_beta -1.0; expected 0 or more"),
        (RLOR, loss(klBeta="Infinity"), "kl_beta inf"),
        (RLOR, loss(method="DPO"), "expected one of GRPO, DAPO, GSPO_TOKEN"),
        (RLOR, loss(dpo={"beta": 0.1}), "loss_config.dpo must be unset when method is GRPO"),
        (RLOR, training(warmStartFrom="m0"), ONE_START),
        (RLOR, {"dataset": "d"}, "got neither baseModel nor warmStartFrom"),
        (RLOR, {"trainingConfig": {"baseModel": BASE}}, "dataset is required"),
        (RLOR, {**training(loraRank=8), "serviceMode": True}, "`loraRank>0` is rejected"),
        (RLOR, training(epochs=0), "epochs 0; expected 1 to 100"),
        (RLOR, training(outputModel="Not An Id"), "contains invalid characters"),
        (RLOR, {**STEP, "dataset": "accounts/other/datasets/d"}, "must be of accounts/acme"),
        (RLOR, {**STEP, "rewardWeights": ["=1"]}, "expected NAME or NAME=WEIGHT"),
        (RLOR, {**STEP, "rewardWeights": ["a=nan"]}, "expected NAME or NAME=WEIGHT"),
        (RLOR, {**STEP, "rewardWeights": ["a=1e300"]}, "expected NAME or NAME=WEIGHT"),
        (RLOR, {**STEP, "rewardWeights": ["a", "a=2"]}, "each name once"),
        (f"{RLOR}?rlorTrainerJobId=9", STEP, "starting with a letter"),
        (DPO, {"trainingConfig": {"baseModel": BASE}}, "dataset"),
        (DPO, loss(method="DAPO"), "expected one of DPO, ORPO"),
        (DPO, loss(dpo={"beta": 0.5}), "more than 0 and less than 0.5"),
        (DPO, loss(method="ORPO", dpo={"beta": 0.1}), "must be unset when method is ORPO"),
        (DPO, loss(klBeta=0.1), "loss_config.kl_beta must be 0/unset when method is DPO"),
    ],
)
def test_what_cannot_be_is_refused_in_words(api, path, body, words):
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    assert words in answer.json()["message"]
