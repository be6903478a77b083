"""Accelerators, as the API names them: asked for, shown, refused."""

import pytest

ACME = "/v1/accounts/acme"
JOBS = f"{ACME}/supervisedFineTuningJobs"
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random", "outputModel": "m"}


@pytest.fixture(autouse=True)
def dataset(world, api):
    world.drop()
    body = {"externalUrl": "gs://acme-data/data/train.jsonl"}
    api.post(f"{ACME}/datasets", {"datasetId": "d", "dataset": body})


def test_a_job_shows_the_machine_that_it_asked_for(api):
    asked = {"acceleratorType": "NVIDIA_H100_80GB", "acceleratorCount": 2}
    answer = api.post(JOBS, {**SFT, **asked})
    assert answer.json() | asked == answer.json()
    assert "accelerator" not in answer.headers.get("x-sublet-ignored-fields", "")


def test_who_asks_for_none_is_shown_none(api):
    asked = {"accelerator_type": "ACCELERATOR_TYPE_UNSPECIFIED", "accelerator_count": None}
    answer = api.post(JOBS, {**SFT, **asked}).json()
    assert not {"acceleratorType", "acceleratorCount"} & answer.keys()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"acceleratorCount": 3}, "this deployment has 1"),
        ({"acceleratorType": "NVIDIA_A10G_24GB"}, "this deployment has NVIDIA_A100_40GB, "),
        ({"acceleratorType": "NVIDIA_H200_141GB", "acceleratorCount": 4}, "has 8, 16, 24"),
    ],
)
def test_a_machine_that_is_not_there_is_refused_in_words(api, asked, words):
    answer = api.post(JOBS, {**SFT, **asked})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]
    assert api.get(JOBS).json()["supervisedFineTuningJobs"] == []


def test_what_a_watch_asks_for_is_what_its_jobs_get(world, api):
    template = {
        "baseModel": "accounts/fireworks/models/tiny-random",
        "acceleratorType": "NVIDIA_H200_141GB",
    }
    watch = {"bucket": "acme-data", "prefix": "drops/", "trainingTemplate": template}
    made = api.post(f"{ACME}/watches", {"watchId": "w", "watch": watch}).json()
    assert made["trainingTemplate"]["acceleratorCount"] == 8
    world.announce(world.drop(name="drops/a.jsonl"))
    (job,) = api.get(JOBS).json()["supervisedFineTuningJobs"]
    assert (job["acceleratorType"], job["acceleratorCount"]) == ("NVIDIA_H200_141GB", 8)
    change = {"trainingTemplate": {"epochs": 2}}
    changed = api.call("PATCH", f"{ACME}/watches/w", json=change).json()["trainingTemplate"]
    assert (changed["acceleratorType"], changed["acceleratorCount"]) == ("NVIDIA_H200_141GB", 8)
    change = {"trainingTemplate": {"acceleratorType": "NVIDIA_H200_141GB", "acceleratorCount": 1}}
    assert "has 8, 16" in api.call("PATCH", f"{ACME}/watches/w", json=change).json()["message"]
