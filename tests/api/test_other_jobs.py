"""
Reinforcement steps and preference jobs: a combination that cannot be is refused in the words that
callers know; one that could be is told what to use until a trainer has the loss.
"""

import pytest

ACME = "/v1/accounts/acme"
BASE = "accounts/fireworks/models/tiny-random"
STEP = {"dataset": "d", "trainingConfig": {"baseModel": BASE, "outputModel": "m"}}
RLOR, DPO = f"{ACME}/rlorTrainerJobs", f"{ACME}/dpoJobs"
ONE_START = "Only one of 'base_model' or 'warm_start_from' should be specified."


def loss(**config):
    return {**STEP, "lossConfig": config}


def training(**config):
    return {**STEP, "trainingConfig": {**STEP["trainingConfig"], **config}}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RLOR, STEP),
        (RLOR, {"rlor_trainer_job": {**STEP, "reward_weights": ["score"]}}),
        (RLOR, {**STEP, "rewardWeights": ["score=0.5", "brevity=-1"]}),
        (RLOR, loss(method="GRPO", klBeta=0.01)),
        (RLOR, loss(method="DAPO", klBeta=0)),
        (RLOR, loss(method="METHOD_UNSPECIFIED")),
        (RLOR, {**training(acceleratorCount=2), "nodeCount": 1}),
        (RLOR, {"keepAlive": True, "trainingConfig": {"baseModel": BASE}}),
        (RLOR, {"serviceMode": True, "trainingConfig": {"baseModel": BASE, "loraRank": 0}}),
        (DPO, STEP),
        (DPO, loss(method="DPO", dpo={"beta": 0.1})),
        (DPO, loss(method="ORPO")),
    ],
)
def test_what_could_be_is_told_what_to_use_instead(api, path, body):
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (501, 12), answer.text
    assert "supervisedFineTuningJobs" in answer.json()["message"]
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
        (RLOR, {**STEP, "rewardWeights": ["a", "a=2"]}, "each name once"),
        (f"{RLOR}?rlorTrainerJobId=9", STEP, "starting with a letter"),
        (DPO, {"trainingConfig": {"baseModel": BASE}}, "dataset"),
        (DPO, loss(method="DAPO"), "expected one of DPO, ORPO, GRPO"),
        (DPO, loss(dpo={"beta": 0.5}), "more than 0 and less than 0.5"),
        (DPO, loss(method="ORPO", dpo={"beta": 0.1}), "must be unset when method is ORPO"),
        (DPO, loss(klBeta=0.1), "loss_config.kl_beta must be 0/unset when method is DPO"),
    ],
)
def test_what_cannot_be_is_refused_in_words(api, path, body, words):
    answer = api.post(path, body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
    assert words in answer.json()["message"]
