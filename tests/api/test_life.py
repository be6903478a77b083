"""What becomes of datasets, jobs and models after they were made: renamed, resumed, deleted."""

from dataclasses import replace

import pytest

from sublet.datasets import Dataset
from sublet.jobs import Job
from sublet.models import Model
from sublet.names import ModelName

ACME = "/v1/accounts/acme"
JOBS = f"{ACME}/supervisedFineTuningJobs"
DATASET = {
    "datasetId": "d",
    "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl", "displayName": "D"},
}
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random", "outputModel": "m"}


@pytest.fixture
def dataset(world, api):
    world.drop()
    return api.post(f"{ACME}/datasets", DATASET).json()


@pytest.fixture
def job(dataset, api):
    return api.post(f"{JOBS}?supervisedFineTuningJobId=j", SFT).json()


@pytest.fixture
def trained(world, job):
    """The job done, its access ended."""
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    world.deliver()


# --- datasets -------------------------------------------------------------------------------------


def test_a_dataset_can_be_renamed_and_nothing_else_of_it_changes(dataset, api):
    path = f"{ACME}/datasets/d"
    renamed = api.call("PATCH", path, json={"displayName": "N", "exampleCount": 4}).json()
    assert renamed["displayName"] == "N"
    assert renamed | {"displayName": "D", "updateTime": 0} == dataset | {"updateTime": 0}
    for change in ({"externalUrl": "gs://acme-data/x"}, {"format": "RL"}, {"exampleCount": "9"}):
        answer = api.call("PATCH", path, json=change)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)


def test_a_repeated_create_of_another_display_name_is_409(dataset, api):
    other = {**DATASET, "dataset": {**DATASET["dataset"], "displayName": "E"}}
    assert api.post(f"{ACME}/datasets", other).status_code == 409


def test_a_dataset_that_a_job_reads_is_not_deleted(job, world, api):
    answer = api.call("DELETE", f"{ACME}/datasets/d")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert "supervisedFineTuningJobs/j" in answer.json()["message"]
    api.post(f"{JOBS}/j:cancel", {})
    assert api.call("DELETE", f"{ACME}/datasets/d").json() == {}


def test_deleting_a_dataset_leaves_the_owners_object_alone(dataset, world, api):
    api.call("DELETE", f"{ACME}/datasets/d")
    assert api.post(f"{ACME}/datasets", DATASET).is_success


def test_a_late_event_does_not_bring_a_deleted_dataset_back(world, api):
    version = world.drop()
    made = world.announce(version)
    api.post(f"{JOBS}/{made.name.id}:cancel", {})
    assert api.call("DELETE", f"{ACME}/datasets/{made.name.id}").is_success
    assert world.announce(version) is None
    assert world.all(Dataset) == []


def test_a_format_that_the_rows_are_not_of_is_refused(world, api):
    world.drop()
    body = {"datasetId": "d", "dataset": {**DATASET["dataset"], "format": "COMPLETION"}}
    answer = api.post(f"{ACME}/datasets", body)
    assert answer.status_code == 400 and "CHAT" in answer.json()["message"]


FOLDER = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/"}}


def test_a_folder_stands_for_its_only_file(world, api):
    version = world.drop(name="data/only.jsonl")
    world.drop(name="data-2/other.jsonl")
    made = api.post(f"{ACME}/datasets", FOLDER).json()
    assert made["externalUrl"] == "gs://acme-data/data/only.jsonl"
    assert made["externalGeneration"] == str(version.generation)
    world.drop(name="data/later.jsonl")
    assert api.post(f"{ACME}/datasets", FOLDER).json() == made, "a repeat finds the first one"


@pytest.mark.parametrize(("names", "words"), [((), "no file"), (("a", "b"), "a.jsonl, data/b")])
def test_a_folder_of_another_number_of_files_is_refused_with_what_was_found(
    world, api, names, words
):
    for name in names:
        world.drop(name=f"data/{name}.jsonl")
    answer = api.post(f"{ACME}/datasets", FOLDER)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]


def test_looking_into_a_folder_is_under_a_lease_that_ends(world, api):
    world.drop()
    api.post(f"{ACME}/datasets", FOLDER)
    leases = api.get(f"{ACME}/leases").json()["leases"]
    assert sorted(lease["externalUrl"] for lease in leases) == [
        "gs://acme-data/data/",
        "gs://acme-data/data/train.jsonl",
    ]
    assert {lease["state"] for lease in leases} == {"REVOKED"}


def test_a_folder_can_be_looked_into_when_only_one_data_account_may_be_lit(world, api):
    world.drop()
    api.post(f"{ACME}/datasets", {**DATASET, "datasetId": "first"})
    assert api.post(f"{ACME}/datasets", FOLDER).is_success
    world.advance(seconds=71)
    world.sweep.run()
    assert {lease["state"] for lease in api.get(f"{ACME}/leases").json()["leases"]} == {"REVOKED"}


def test_a_folder_of_a_bucket_that_proves_nothing_is_not_looked_into(world, api):
    world.cloud.set_bindings("acme-data", ())
    answer = api.post(f"{ACME}/datasets", FOLDER)
    assert (answer.status_code, answer.json()["code"]) == (403, 7)
    assert api.get(f"{ACME}/leases").json()["leases"] == []


def test_the_data_is_offered_to_nobody_through_the_api(dataset, api):
    answer = api.get(f"{ACME}/datasets/d:getDownloadEndpoint")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert "gs://acme-data/data/train.jsonl" in answer.json()["message"]


# --- jobs -----------------------------------------------------------------------------------------


def test_a_job_that_is_not_over_is_not_deleted(job, api):
    answer = api.call("DELETE", f"{JOBS}/j")
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert "cancel it first" in answer.json()["message"]
    api.post(f"{JOBS}/j:cancel", {})
    assert api.call("DELETE", f"{JOBS}/j").json() == {}
    assert api.get(f"{JOBS}/j").status_code == 404


def test_a_cancelled_job_is_resumed_under_a_new_lease(job, world, api):
    world.deliver()
    api.post(f"{JOBS}/j:cancel", {})
    first = world.the(Job).lease
    assert api.post(f"{JOBS}/j:resume", {}).status_code == 503, "its access is not ended yet"
    world.deliver()
    resumed = api.post(f"{JOBS}/j:resume", {}).json()
    assert (resumed["state"], resumed["status"]["message"]) == ("JOB_STATE_CREATING", "")
    assert api.get(f"{ACME}/models/m").json()["state"] == "UPLOADING"
    world.advance(minutes=10)
    world.deliver()
    trainer = world.container("execution-2")
    assert trainer.lease not in (first, None)
    trainer.claim()
    trainer.finish()
    world.deliver()
    assert api.get(f"{JOBS}/j").json()["state"] == "JOB_STATE_COMPLETED"


def test_a_resumed_job_goes_on_from_its_last_checkpoint(job, world, api):
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.beat(checkpoint="models/m/checkpoint-7.safetensors")
    api.post(f"{JOBS}/j:cancel", {})
    world.deliver()
    world.advance(minutes=10)
    api.post(f"{JOBS}/j:resume", {})
    world.deliver()
    order = world.container("execution-2").claim().training
    assert order.resume_from == "models/m/checkpoint-7.safetensors"


def test_a_job_that_is_done_or_running_is_not_resumed(trained, api):
    answer = api.post(f"{JOBS}/j:resume", {})
    assert (answer.status_code, answer.json()["code"]) == (400, 9)


def test_deleting_a_job_leaves_its_model_and_its_leases(trained, world, api):
    assert api.call("DELETE", f"{JOBS}/j").json() == {}
    assert api.get(f"{ACME}/models/m").json()["state"] == "READY"
    assert [lease["state"] for lease in api.get(f"{ACME}/leases").json()["leases"]]


@pytest.mark.parametrize(
    "field",
    [
        {"batchSizeSamples": 8},
        {"gradientAccumulationSteps": 4},
        {"jinjaTemplate": "{{ messages }}"},
        {"rendererHuggingFaceRepoId": "a/b"},
        {"mtpEnabled": True},
        {"awsS3Config": {"iamRoleArn": "arn"}},
        {"azureBlobStorageConfig": {"tenantId": "t"}},
        {"wandbConfig": {"enabled": True}},
    ],
)
def test_a_setting_that_no_trainer_honours_is_refused_and_not_dropped(dataset, api, field):
    answer = api.post(JOBS, {**SFT, **field})
    assert (answer.status_code, answer.json()["code"]) == (501, 12)
    assert next(iter(field)) in answer.json()["message"]


def test_neutral_values_of_such_settings_are_echoed(dataset, api):
    neutral = {"gradientAccumulationSteps": 1, "batchSizeSamples": 0}
    unshown = {"wandbConfig": {"enabled": False}, "awsS3Config": {}, "mtpEnabled": False}
    answer = api.post(JOBS, {**SFT, **neutral, **unshown}).json()
    assert {name: answer[name] for name in neutral} == neutral


# --- models ---------------------------------------------------------------------------------------


def test_a_model_says_where_its_owner_finds_it(trained, api):
    answer = api.get(f"{ACME}/models/m:getDownloadEndpoint")
    uri = api.get(f"{ACME}/models/m").json()["uri"]
    assert (answer.status_code, answer.json()["code"]) == (400, 9)
    assert f"gcloud storage cp --recursive {uri}" in answer.json()["message"]


def test_a_model_that_is_being_written_is_not_deleted_and_one_that_is_ready_is(world, job, api):
    assert api.call("DELETE", f"{ACME}/models/m").status_code == 400
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    assert api.call("DELETE", f"{ACME}/models/m").json() == {}
    assert api.get(f"{ACME}/models/m").status_code == 404


def test_the_catalogue_is_read_only(api):
    answer = api.call("DELETE", "/v1/accounts/fireworks/models/tiny-random")
    assert (answer.status_code, answer.json()["code"]) == (403, 7)


def test_continuing_shows_field_stored_and_given_value(trained, api):
    body = {"dataset": "d", "warmStartFrom": "m", "loraRank": 16, "epochs": 3, "batchSize": 32768}
    answer = api.post(JOBS, body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    message = answer.json()["message"]
    assert "lora_rank: stored 8, given 16" in message and "epochs: stored 1, given 3" in message
    assert "batch_size" not in message


def test_continuing_takes_the_settings_of_the_adapter_and_reads_its_tensors(trained, world, api):
    body = {"dataset": "d", "warmStartFrom": "accounts/acme/models/m", "outputModel": "n"}
    made = api.post(f"{JOBS}?supervisedFineTuningJobId=k", body).json()
    assert made["warmStartFrom"] == "accounts/acme/models/m" and "baseModel" not in made
    assert (made["loraRank"], made["epochs"], made["outputModel"].rpartition("/")[2]) == (8, 1, "n")
    world.advance(minutes=6)  # until no token of an ended lease could be revived
    world.deliver()
    reads = api.get(f"{ACME}/leases").json()["leases"]
    (training,) = [lease for lease in reads if lease.get("job", "").endswith("/k")]
    (tensors,) = training["readsBeside"]
    assert tensors.startswith("gs://acme-data/models/m/epoch-1/adapter_model.safetensors#")


def test_an_adapter_whose_tensors_are_not_known_is_not_continued(trained, world, api):
    model = world.registry.get(Model, ModelName.parse("accounts/acme/models/m"))
    older = replace(model.record, adapter=replace(model.record.adapter, weights=None))
    world.registry.commit(model.replaced_by(older))
    answer = api.post(JOBS, {"dataset": "d", "warmStartFrom": "m"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert "where its tensors lie" in answer.json()["message"]


def test_an_adapter_in_another_bucket_than_the_dataset_is_not_continued(trained, world, api):
    world.make_bucket("acme-second")
    world.drop(bucket="acme-second")
    world.advance(minutes=6)
    elsewhere = {"datasetId": "e", "dataset": {"externalUrl": "gs://acme-second/data/train.jsonl"}}
    assert api.post(f"{ACME}/datasets", elsewhere).status_code == 200
    answer = api.post(JOBS, {"dataset": "e", "warmStartFrom": "m"})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert "register the dataset in gs://acme-data" in answer.json()["message"]


def test_an_adapter_that_a_job_continues_is_not_deleted(trained, api):
    api.post(JOBS, {"dataset": "d", "warmStartFrom": "m", "outputModel": "n"})
    assert api.call("DELETE", f"{ACME}/models/m").status_code == 400


# --- evaluation -----------------------------------------------------------------------------------


@pytest.fixture
def held_back(dataset, world, api):
    world.drop(name="data/held-back.jsonl")
    body = {"datasetId": "h", "dataset": {"externalUrl": "gs://acme-data/data/held-back.jsonl"}}
    return api.post(f"{ACME}/datasets", body).json()


def test_an_evaluation_dataset_is_read_beside_and_stays_while_the_job_runs(held_back, world, api):
    body = {**SFT, "evaluationDataset": "h", "earlyStop": True, "epochs": 3}
    made = api.post(JOBS, body).json()
    assert made["evaluationDataset"] == "accounts/acme/datasets/h" and made["earlyStop"] is True
    assert api.call("DELETE", f"{ACME}/datasets/h").status_code == 400
    world.advance(minutes=6)
    world.deliver()
    order = world.container().claim().training
    assert order.evaluation.version.url == "gs://acme-data/data/held-back.jsonl"
    receipt = api.get(f"/v1/{made['name']}:receipt").json()
    checked = {r["externalUrl"] for r in receipt["readings"] if r["purpose"] == "VERIFICATION"}
    assert checked == {"gs://acme-data/data/train.jsonl", "gs://acme-data/data/held-back.jsonl"}
    (trained_on,) = [r for r in receipt["readings"] if r["purpose"] == "TRAINING"]
    assert trained_on["readsBeside"][0]["externalGeneration"] == held_back["externalGeneration"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"evaluationDataset": "d"}, "cannot be evaluated on itself"),
        ({"evaluationDataset": "accounts/other/datasets/h"}, "evaluationDataset must be of"),
        ({"evaluationDataset": "h", "evalAutoCarveout": True}, "expected one of them"),
        ({"earlyStop": True, "epochs": 3}, "nothing to evaluate on"),
        ({"earlyStop": True, "evalAutoCarveout": True}, "evaluated after each"),
    ],
    ids=["itself", "another's", "both", "nothing", "one epoch"],
)
def test_an_evaluation_that_cannot_be_is_refused(held_back, api, fields, reason):
    answer = api.post(JOBS, {**SFT, **fields})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert reason in answer.json()["message"]


def test_an_evaluation_dataset_of_other_rows_is_refused(dataset, world, api):
    row = b'{"prompt": "p", "completion": "c"}\n'
    world.drop(row * 4, name="data/completions.jsonl")
    body = {"datasetId": "c", "dataset": {"externalUrl": "gs://acme-data/data/completions.jsonl"}}
    assert api.post(f"{ACME}/datasets", body).status_code == 200
    answer = api.post(JOBS, {**SFT, "evaluationDataset": "c"})
    assert "COMPLETION rows" in answer.json()["message"]


def test_the_adapters_shape_is_given_in_pefts_words(dataset, api):
    shape = {
        "loraRank": 4,
        "loraAlpha": 6,
        "loraDropout": 0.1,
        "useRslora": True,
        "useDora": True,
        "targetModules": ["q_proj", "v_proj"],
        "dropLongRows": True,
    }
    made = api.post(JOBS, {**SFT, **shape}).json()
    assert {name: made[name] for name in shape} == shape
    refused = api.post(JOBS, {**SFT, "targetModules": ["q_proj.*"]})
    assert refused.status_code == 400 and "'q_proj.*'" in refused.json()["message"]


def test_the_schedule_of_the_learning_rate_is_one_of_three(dataset, api):
    asked = {"learningRateScheduler": "linear", "learningRateMinLrRatio": 0.0}
    made = api.post(JOBS, {**SFT, **asked}).json()
    assert {name: made[name] for name in asked} == asked
    refused = api.post(JOBS, {**SFT, "learningRateScheduler": "polynomial"})
    assert refused.status_code == 400
    assert "expected one of cosine, linear, constant" in refused.json()["message"]


def test_an_alpha_that_is_not_given_is_twice_the_rank(trained, api):
    assert api.get(f"{JOBS}/j").json()["loraAlpha"] == 16
    same = {"dataset": "d", "warmStartFrom": "m", "outputModel": "n", "loraAlpha": 16}
    assert api.post(JOBS, same).status_code == 200
    other = api.post(JOBS, {**same, "outputModel": "o", "loraAlpha": 8})
    assert "lora_alpha: stored 16, given 8" in other.json()["message"]


# --- models, again --------------------------------------------------------------------------------


def test_an_adapter_is_no_base_model_and_a_base_model_no_adapter(trained, world, api):
    as_base = api.post(JOBS, {**SFT, "baseModel": "accounts/acme/models/m", "outputModel": "n"})
    assert as_base.status_code == 400 and "HF_PEFT_ADDON" in as_base.json()["message"]
    missing = api.post(JOBS, {"dataset": "d", "warmStartFrom": "nothing"})
    assert missing.status_code == 400 and "does not exist" in missing.json()["message"]


def test_an_adapter_keeps_what_it_was_trained_with(trained, world):
    model = world.registry.get(Model, ModelName.parse("accounts/acme/models/m")).record
    assert model.settings == world.the(Job).settings
