"""The client against the control plane itself, over HTTP."""

import io
import json
import re

import httpx
import msgspec
import pytest
from memory_world import PROJECT_NUMBER
from rich.console import Console
from rich.text import Text

from sublet import (
    LLM,
    AccessDenied,
    AlreadyExists,
    Client,
    Dataset,
    FailedPrecondition,
    InvalidRequest,
    JobCancelled,
    JobDeleted,
    JobFailed,
    NotConfigured,
    NotFound,
    SupervisedFineTuningJob,
    Unauthenticated,
    UnexpectedAnswer,
    WaitTimedOut,
)
from sublet.client.http import api_of_the_environment
from sublet.client.progress import Losses, shown_progress
from sublet.client.retries import Retries
from sublet.jobs import Progress

URL = "gs://acme-data/data/train.jsonl"
TINY = "accounts/fireworks/models/tiny-random"


@pytest.fixture
def dataset(world, client) -> Dataset:
    world.drop()
    return Dataset.create("rows", external_url=URL)


@pytest.fixture
def job(llm, dataset) -> SupervisedFineTuningJob:
    return llm.create_supervised_fine_tuning_job("Rows", dataset, output_model="m", job_id="j")


@pytest.fixture
def trained(world, job):
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    world.deliver()


@pytest.fixture
def meanwhile(api):
    """A client, and what happens while it waits: one thing between each two polls."""

    def make(*events) -> Client:
        waiting = list(events)
        retries = Retries(sleep=lambda seconds: waiting.pop(0)())
        return Client(api=api_of_the_environment(retries=retries))

    return make


# --- datasets -------------------------------------------------------------------------------------


def test_a_dataset_says_what_was_proved_about_its_file(dataset):
    assert (dataset.id, dataset.state, dataset.format) == ("rows", "READY", "CHAT")
    assert (dataset.example_count, dataset.external_url) == (4, URL)
    assert dataset.access_check.refusals == ()
    facts = {fact.fact: fact.verdict for fact in dataset.access_check.facts}
    assert facts["data_account_may_read"] == "PROVED"


def test_asking_for_the_same_dataset_again_gives_the_same_one(dataset, world):
    assert Dataset.create("rows", external_url=URL) == dataset == Dataset.from_id("rows")
    assert Dataset.from_id(dataset.name) == dataset
    world.drop(name="data/other.jsonl")
    with pytest.raises(AlreadyExists, match="rows"):
        Dataset.create("rows", external_url="gs://acme-data/data/other.jsonl")


def test_a_refused_dataset_says_which_command_mends_it(world, client):
    world.cloud.make_bucket("bare", project_number=PROJECT_NUMBER)
    with pytest.raises(AccessDenied, match="run: gcloud storage buckets add-iam-policy-binding"):
        Dataset.create("bare", external_url="gs://bare/rows.jsonl")


def test_what_was_deleted_is_none_and_what_never_was_is_an_error(dataset):
    dataset.delete()
    assert dataset.get() is None
    with pytest.raises(NotFound, match="datasets/rows"):
        Dataset.from_id("rows")


def test_every_field_of_the_answer_can_be_seen(dataset):
    """A newer control plane tells more than this client has names for."""
    assert dataset.to_dict()["objectFinalizeTime"]


def test_no_field_is_empty_only_because_its_name_on_the_wire_is_another(client, dataset, trained):
    done = client.supervised_fine_tuning_job("j")
    wires = {
        dataset: dataset.to_dict(),
        done: {**done.to_dict(), "warmStartFrom": "", "loss": 0, "tokensPerSecond": 0}
        | {"etaSeconds": 0, "evalLoss": 0},
        client.account(): {**client.account().to_dict(), "challengeLabel": ""},
        done.model(): done.model().to_dict(),
    }
    for resource, wire in wires.items():
        named = {field.encode_name for field in msgspec.structs.fields(resource)}
        assert named <= set(wire), named - set(wire)
    for reading in done.receipt().readings:
        assert None not in (reading.start_time, reading.minting_stop_time, reading.proof)
    assert done.receipt().external_crc32c == dataset.external_crc32c != ""


def test_what_is_null_is_not_there():
    wire = {"name": "accounts/a/datasets/d", "displayName": None, "status": {"message": None}}
    dataset = Dataset.read(None, wire)
    assert (dataset.display_name, dataset.status.message) == ("", "")


def test_an_answer_of_another_kind_names_the_field():
    with pytest.raises(UnexpectedAnswer, match=r"exampleCount"):
        Dataset.read(None, {"name": "accounts/a/datasets/d", "exampleCount": "many"})


# --- jobs -----------------------------------------------------------------------------------------


def test_a_job_is_trained_and_leaves_a_model_and_a_receipt(meanwhile, world, job):
    def started():
        world.deliver()
        trainer = world.container()
        trainer.claim()
        trainer.beat(progress=Progress(step=3, num_steps=4, epoch=0.75, loss=1.5))
        world.trainer = trainer

    def finished():
        world.trainer.finish()
        world.deliver()

    client = meanwhile(started, finished)
    done = client.supervised_fine_tuning_job("j").wait()
    assert done.is_completed
    assert (done.step, done.num_steps, done.loss) == (3, 4, 1.5)
    assert done.output_model == "accounts/acme/models/m"
    model = done.model()
    assert (model.state, model.is_adapter) == ("READY", True)
    assert model.peft_details.base_model == TINY
    receipt = done.receipt()
    assert receipt.external_url == URL
    assert [reading.purpose for reading in receipt.readings]


def test_a_job_that_fails_is_noticed_with_its_cause(meanwhile, world, job):
    def failed():
        world.deliver()
        trainer = world.container()
        trainer.claim()
        trainer.finish(is_success=False, adapter=None, message="the loss is not a number")
        world.deliver()

    with pytest.raises(JobFailed, match="JOB_STATE_FAILED"):
        meanwhile(failed).supervised_fine_tuning_job("j").wait()


def test_a_job_that_is_cancelled_is_noticed(meanwhile, job):
    waiting = meanwhile(job.cancel).supervised_fine_tuning_job("j")
    with pytest.raises(JobCancelled, match="cancelled by owner"):
        waiting.wait_for_completion()


def test_a_job_that_is_deleted_is_none_and_ends_the_waiting(meanwhile, job):
    def deleted():
        job.cancel()
        job.delete()

    waiting = meanwhile(deleted).supervised_fine_tuning_job("j")
    with pytest.raises(JobDeleted, match="was deleted while"):
        waiting.wait()
    assert job.get() is None


def test_waiting_ends_in_time_and_the_job_goes_on(job):
    with pytest.raises(WaitTimedOut, match="it goes on"):
        job.wait(timeout_s=0)
    assert job.get().state == "JOB_STATE_CREATING"


def test_only_a_job_that_ended_badly_is_resumed(job):
    with pytest.raises(FailedPrecondition, match="JOB_STATE_CREATING"):
        job.resume()
    job.cancel()
    assert job.resume().state == "JOB_STATE_CREATING"


def test_settings_that_are_not_given_are_the_control_planes_to_choose(llm, dataset):
    wire = llm.create_supervised_fine_tuning_job(dataset=dataset, epochs=3).to_dict()
    assert (wire["epochs"], wire["loraRank"]) == (3, 8)
    with pytest.raises(InvalidRequest, match="learning_rate"):
        llm.create_supervised_fine_tuning_job(dataset=dataset, learning_rate=7.0)


def test_a_job_needs_one_dataset(llm, dataset):
    for given in ({}, {"dataset": "a", "dataset_or_id": "b"}):
        with pytest.raises(TypeError, match="give one dataset"):
            llm.create_supervised_fine_tuning_job("x", **given)


# --- models to begin with -------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["tiny-random", TINY])
def test_a_base_model_is_named_by_its_id_or_its_full_name(client, text):
    assert LLM(text, client=client).model == TINY


@pytest.mark.parametrize("text", ["m", "accounts/acme/models/m"])
def test_an_adapter_of_ones_own_is_trained_further(script, client, trained, text):
    plane = script(
        httpx.Response(200, json=client.model(text).to_dict()),
        httpx.Response(200, json={"name": "accounts/acme/supervisedFineTuningJobs/j"}),
    )
    LLM(text, client=Client(api=plane.api)).create_supervised_fine_tuning_job(dataset="rows")
    asked = plane.asked[-1]
    assert json.loads(asked.content) == {
        "dataset": "rows",
        "warmStartFrom": "accounts/acme/models/m",
    }
    job_id = asked.url.params["supervisedFineTuningJobId"]
    assert re.fullmatch("sftj-[0-9a-f]{12}", job_id), "named before it is asked for"


def test_a_model_that_there_is_not_is_refused(client, dataset):
    with pytest.raises(InvalidRequest, match="models/none"):
        LLM("none", client=client).create_supervised_fine_tuning_job(dataset=dataset)
    with pytest.raises(NotFound):
        assert LLM("accounts/acme/models/none", client=client).model


def test_rows_for_another_kind_of_job_are_refused_in_words(llm, dataset):
    with pytest.raises(FailedPrecondition, match=r"CHAT rows.*use supervisedFineTuningJobs"):
        llm.reinforcement_step(dataset=dataset, output_model="improved")
    with pytest.raises(FailedPrecondition, match="trains on PREFERENCE"):
        llm.create_dpo_job(dataset=dataset, loss_method="DPO", beta=0.2)


# --- the account ----------------------------------------------------------------------------------


def test_an_account_chooses_its_settings(client):
    assert not client.account().always_on
    assert client.update_account(always_on=True).always_on
    challenged = client.update_account(challenge_required=True)
    assert challenged.always_on and challenged.challenge_required
    assert client.account(bucket="acme-data").challenge_label.startswith("sublet-challenge=")
    with pytest.raises(AccessDenied, match="only the operator"):
        client.update_account(challenge_required=False)


# --- which control plane --------------------------------------------------------------------------


def test_the_account_is_the_keys_own_if_none_is_given(api, monkeypatch, client, dataset):
    monkeypatch.delenv("SUBLET_ACCOUNT_ID")
    with Client() as found_out:
        assert found_out.account() == client.account()
        assert [one.id for one in found_out.datasets()] == ["rows"]


@pytest.mark.parametrize("missing", ["SUBLET_BASE_URL", "SUBLET_API_KEY"])
def test_without_an_address_or_a_key_it_says_what_to_set(api, monkeypatch, missing):
    monkeypatch.delenv(missing)
    with pytest.raises(NotConfigured, match=f"no {missing} in the environment"):
        LLM("tiny-random")


def test_a_key_that_is_none_is_told_so(api):
    with pytest.raises(Unauthenticated):
        Client(api_key="sk-nobody").account()


def test_every_page_of_a_list_is_read(client, llm, dataset):
    for number in range(3):
        llm.create_supervised_fine_tuning_job(dataset=dataset, job_id=f"j-{number}")
    listed = client.api.list("supervisedFineTuningJobs", pageSize="1")
    names = [job["name"].rpartition("/")[2] for job in listed]
    assert sorted(names) == ["j-0", "j-1", "j-2"]
    assert {job.id for job in client.supervised_fine_tuning_jobs()} == set(names)
    assert TINY in [model.name for model in Client(account_id="fireworks").models()]


# --- progress -------------------------------------------------------------------------------------


def test_the_loss_is_a_line_that_falls_as_it_falls(job):
    losses = Losses()
    for step, loss in enumerate((4.0, 3.0, 2.0, 0.5), start=1):
        wire = {**job.to_dict(), "step": step, "loss": loss}
        losses.add(SupervisedFineTuningJob.read(None, wire))
    assert losses.line() == "loss █▆▄▁ 0.5000"


def test_progress_on_a_terminal_is_a_bar_with_the_loss_under_it(job):
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    wire = {**job.to_dict(), "state": "JOB_STATE_RUNNING", "numSteps": 4}
    with shown_progress(screen) as show:
        for step, loss in enumerate((3.0, 2.0), start=1):
            progress = {"step": step, "loss": loss, "jobProgress": {"percent": 25 * step}}
            show(SupervisedFineTuningJob.read(None, {**wire, **progress}))
    last_drawn = Text.from_ansi(screen.file.getvalue()).plain.splitlines()[-2:]
    assert last_drawn[0].startswith("j  JOB_STATE_RUNNING  step 2/4 ━")
    assert " 50% " in last_drawn[0]
    assert last_drawn[1].strip() == "loss █▁ 2.0000"


def test_progress_off_a_terminal_is_a_line_for_each_change(meanwhile, world, job, capsys):
    def started():
        world.deliver()
        world.trainer = world.container()
        world.trainer.claim()
        world.trainer.beat(progress=Progress(step=1, num_steps=4, loss=2.25))

    def finished():
        world.trainer.finish()
        world.deliver()

    client = meanwhile(lambda: None, started, finished)
    client.supervised_fine_tuning_job("j").wait(progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "j  JOB_STATE_CREATING",
        "j  JOB_STATE_RUNNING  step 1/4  loss 2.2500",
        "j  JOB_STATE_COMPLETED  step 1/4  loss 2.2500",
    ]
