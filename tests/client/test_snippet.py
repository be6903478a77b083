"""
Fireworks' own example of secure reinforcement fine-tuning, as the README has it: what becomes of it
once a control plane offers the step. (Against ours it is run in tests/cli/test_readme.py.)
"""

import json
import re
import time
from pathlib import Path

import httpx
import pytest

from sublet import LLM, Client, Dataset, JobCancelled, JobFailed

README = (Path(__file__).parents[2] / "README.md").read_text()
(SNIPPET,) = (
    block
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    if "llm.reinforcement_step(" in block
)
NAME = "accounts/acme/rlorTrainerJobs/step-1"


def step(state, message=""):
    training = {"outputModel": "accounts/acme/models/my-improved-model-v1"}
    status = {"code": "OK" if not message else "INTERNAL", "message": message}
    body = {"name": NAME, "state": state, "status": status, "trainingConfig": training}
    return httpx.Response(200, json=body)


GONE = httpx.Response(404, json={"code": 5, "message": f"{NAME} does not exist", "details": []})


@pytest.fixture
def run(script, monkeypatch):
    """The example over a control plane that gives those answers: what it leaves, what it asked."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)

    def runs(*answers):
        plane = script(*answers)
        dataset = Dataset.read(plane.api, {"name": "accounts/acme/datasets/rewarded"})
        llm = LLM("accounts/fireworks/models/base", client=Client(api=plane.api))
        names = {"llm": llm, "dataset": dataset}
        exec(SNIPPET, names)  # noqa: S102  that it runs is what is tested
        return names["job"], plane.asked

    return runs


def test_the_example_asks_for_a_step_and_ends_with_its_model(run):
    job, asked = run(
        step("JOB_STATE_CREATING"), step("JOB_STATE_RUNNING"), step("JOB_STATE_COMPLETED")
    )
    assert job.output_model == "accounts/acme/models/my-improved-model-v1"
    created, *polled = asked
    assert created.url.path == "/v1/accounts/acme/rlorTrainerJobs"
    assert re.fullmatch(r"step-[0-9a-f]{12}", created.url.params["rlorTrainerJobId"])
    assert json.loads(created.content) == {
        "dataset": "accounts/acme/datasets/rewarded",
        "trainingConfig": {
            "outputModel": "my-improved-model-v1",
            "baseModel": "accounts/fireworks/models/base",
            "epochs": 1,
            "learningRate": 1e-5,
            "acceleratorCount": 2,
            "acceleratorType": "NVIDIA_H100_80GB",
        },
    }
    assert [request.url.path for request in polled] == [f"/v1/{NAME}"] * 2


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("JOB_STATE_FAILED", JobFailed),
        ("JOB_STATE_EXPIRED", JobFailed),
        ("JOB_STATE_CANCELLED", JobCancelled),
    ],
)
def test_the_example_notices_a_step_that_ends_badly(run, state, error):
    """The original never does: it compares a number with names."""
    with pytest.raises(error, match=f"{NAME} is {state}: no row has a reward"):
        run(step("JOB_STATE_RUNNING"), step(state, "no row has a reward"))


def test_the_example_notices_that_the_step_was_deleted(run):
    with pytest.raises(RuntimeError, match="Job was deleted while waiting for completion"):
        run(step("JOB_STATE_RUNNING"), GONE)


def test_the_rows_are_not_read_by_the_client(run):
    """The original downloads the dataset to send it."""
    _, asked = run(step("JOB_STATE_COMPLETED"))
    assert [request.method for request in asked] == ["POST"]
