"""
The API answers on the wire that existing clients know, and one account sees nothing of another.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.jobs import Job
from sublet.leases import Lease, LeaseState
from sublet.names import AccountName

ACME = "/v1/accounts/acme"
DATASET = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl"}}
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random", "outputModel": "m"}


@pytest.fixture
def dataset(world, api):
    world.drop()
    return api.post(f"{ACME}/datasets", DATASET).json()


def test_a_dataset_is_made_by_reference_and_ready_at_once(world, api):
    version = world.drop()
    answer = api.post(f"{ACME}/datasets", DATASET)
    assert answer.status_code == 200
    body = answer.json()
    assert body["name"] == "accounts/acme/datasets/d"
    assert (body["state"], body["status"]) == ("READY", {"code": "OK", "message": ""})
    assert (body["exampleCount"], body["format"]) == ("4", "CHAT")
    assert body["externalGeneration"] == str(version.generation)
    assert api.get(f"{ACME}/datasets/d").json() == body


def test_snake_case_null_and_unknown_fields_are_accepted(world, api):
    world.drop()
    body = {
        "dataset_id": "d",
        "dataset": {
            "external_url": "gs://acme-data/data/train.jsonl",
            "display_name": None,
            "new": 1,
        },
    }
    assert api.post(f"{ACME}/datasets", body).status_code == 200


def test_a_create_that_is_repeated_finds_the_first_one(dataset, api):
    assert api.post(f"{ACME}/datasets", DATASET).json() == dataset


def test_a_duplicate_is_answered_so_that_the_client_does_not_retry(world, dataset, api):
    world.drop(name="data/other.jsonl")
    other = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/other.jsonl"}}
    answer = api.post(f"{ACME}/datasets", other)
    assert (answer.status_code, answer.json()["code"]) == (409, 6)
    assert answer.headers["x-should-retry"] == "false"


def test_a_bucket_that_proves_nothing_is_refused_at_create_with_the_command_that_mends_it(
    world, api
):
    version = world.drop()
    world.cloud.set_bindings(version.bucket, ())
    answer = api.post(f"{ACME}/datasets", DATASET)
    assert (answer.status_code, answer.json()["code"]) == (403, 7)
    assert "gcloud storage buckets add-iam-policy-binding" in answer.json()["message"]
    assert api.get(f"{ACME}/datasets/d").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"datasetId": "d"},
        {"datasetId": "D", "dataset": {"externalUrl": "gs://acme-data/a.jsonl"}},
        {"datasetId": "%64", "dataset": {"externalUrl": "gs://acme-data/a.jsonl"}},
        {"datasetId": "d:verify", "dataset": {"externalUrl": "gs://acme-data/a.jsonl"}},
        {"datasetId": "d", "dataset": {"externalUrl": "http://acme-data/a.jsonl"}},
        {"datasetId": "d", "dataset": 3},
        [],
    ],
)
def test_a_bad_request_is_400_with_code_3(api, body):
    answer = api.post(f"{ACME}/datasets", body)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


def test_a_job_is_made_and_its_models_name_is_taken(world, dataset, api):
    answer = api.post(
        f"{ACME}/supervisedFineTuningJobs", {**SFT, "epochs": 2, "learningRate": 0.001}
    )
    body = answer.json()
    assert answer.status_code == 200
    assert (body["state"], body["outputModel"]) == ("JOB_STATE_CREATING", "accounts/acme/models/m")
    assert (body["epochs"], body["learningRate"], body["loraRank"]) == (2, 0.001, 8)
    assert api.get(f"{ACME}/models/m").json()["state"] == "UPLOADING"
    again = api.post(f"{ACME}/supervisedFineTuningJobs", SFT)
    assert (again.status_code, again.json()["code"]) == (409, 6)


def test_a_job_without_a_callers_id_is_another_one_each_time(dataset, api):
    """Nobody can tell a repeat from a wish for two, so clients of ours make up the id."""
    body = {name: value for name, value in SFT.items() if name != "outputModel"}
    made = {api.post(f"{ACME}/supervisedFineTuningJobs", body).json()["name"] for _ in range(2)}
    assert len(made) == 2


def test_a_job_with_a_callers_id_can_be_asked_for_again(dataset, api):
    path = f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId=j"
    first = api.post(path, SFT).json()
    assert api.post(path, SFT).json() == first
    assert api.post(path, {**SFT, "epochs": 3}).status_code == 409


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseModel": "accounts/fireworks/models/none"}, "does not exist"),
        ({"baseModel": None}, "expected one of them"),
        ({"warmStartFrom": "accounts/acme/models/x"}, "Only one of"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs"),
        ({"loraRank": 1000}, "lora_rank"),
        ({"displayName": "n" * 64}, "at most 63"),
        ({"outputModel": "accounts/other/models/m"}, "accounts/acme"),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_words(dataset, api, changes, words):
    answer = api.post(f"{ACME}/supervisedFineTuningJobs", {**SFT, **changes})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]


def test_a_missing_dataset_is_404(api):
    answer = api.post(f"{ACME}/supervisedFineTuningJobs", SFT)
    assert (answer.status_code, answer.json()["code"]) == (404, 5)


def test_a_running_job_shows_step_loss_and_the_age_of_its_heartbeat(world, dataset, api):
    from sublet.jobs import Progress

    api.post(f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId=j", SFT)
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.beat(progress=Progress(step=5, num_steps=10, epoch=0.5, loss=1.25))
    world.advance(seconds=3)
    body = api.get(f"{ACME}/supervisedFineTuningJobs/j").json()
    assert (body["state"], body["step"], body["loss"]) == ("JOB_STATE_RUNNING", 5, 1.25)
    assert (body["jobProgress"]["percent"], body["heartbeatAgeSeconds"]) == (50, 3.0)
    world.advance(minutes=2)
    assert (
        "no heartbeat" in api.get(f"{ACME}/supervisedFineTuningJobs/j").json()["status"]["message"]
    )


def test_the_receipt_is_that_of_the_job(world, dataset, api):
    api.post(f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId=j", SFT)
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    assert api.get(f"{ACME}/supervisedFineTuningJobs/j:receipt").json()["accessIsRefused"] is False
    world.deliver()
    receipt = api.get(f"{ACME}/supervisedFineTuningJobs/j:receipt").json()
    assert receipt["accessIsRefused"] is True
    assert [r["purpose"] for r in receipt["readings"]] == ["VERIFICATION", "TRAINING"]
    assert trainer.tokens[0] not in str(receipt)


def test_cancelling_ends_a_job(world, dataset, api):
    api.post(f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId=j", SFT)
    assert api.post(f"{ACME}/supervisedFineTuningJobs/j:cancel", {}).json() == {}
    assert world.the(Job).state == "JOB_STATE_CANCELLED"


def test_a_watch_that_would_trigger_itself_is_refused(api):
    watch = {
        "bucket": "acme-data",
        "prefix": "models/in/",
        "trainingTemplate": {"baseModel": "accounts/fireworks/models/tiny-random"},
    }
    answer = api.post(f"{ACME}/watches", {"watchId": "w", "watch": watch})
    assert answer.status_code == 400 and "overlap" in answer.json()["message"]


def test_lists_are_paged_newest_first(world, api):
    for number in range(5):
        world.drop(name=f"data/{number}.jsonl")
        world.advance(minutes=2)
        body = {
            "datasetId": f"d{number}",
            "dataset": {"externalUrl": f"gs://acme-data/data/{number}.jsonl"},
        }
        api.post(f"{ACME}/datasets", body)
    names, token = [], ""
    while True:
        page = api.get(f"{ACME}/datasets", params={"pageSize": "2", "pageToken": token}).json()
        names += [d["name"].rpartition("/")[2] for d in page["datasets"]]
        token = page["nextPageToken"]
        if not token:
            break
    assert names == ["d4", "d3", "d2", "d1", "d0"]
    ascending = api.get(f"{ACME}/datasets", params={"orderBy": "createTime"}).json()["datasets"]
    assert ascending[0]["name"].endswith("d0")
    assert api.get(f"{ACME}/leases").json()["leases"]
    assert api.get(f"{ACME}/supervisedFineTuningJobs").json() == {
        "supervisedFineTuningJobs": [],
        "nextPageToken": "",
        "totalSize": 0,
    }


def test_leases_that_call_for_a_person_come_before_newer_ones(world, dataset, api):
    world.advance(minutes=10)
    api.post(f"{ACME}/datasets", {**DATASET, "datasetId": "e"})
    older, newer = sorted(world.all(Lease), key=lambda lease: lease.created_at)
    stored = world.registry.get(Lease, older.name)
    world.registry.commit(stored.replaced_by(replace(older, state=LeaseState.FAILED)))
    listed = [lease["name"] for lease in api.get(f"{ACME}/leases").json()["leases"]]
    assert listed == [older.name, newer.name]
    by_time = api.get(f"{ACME}/leases", params={"orderBy": "createTime desc"}).json()["leases"]
    assert [lease["name"] for lease in by_time] == [newer.name, older.name]


@pytest.mark.parametrize(
    "query", [{"filter": "a>b"}, {"orderBy": "x"}, {"pageToken": "zz"}, {"pageSize": "x"}]
)
def test_a_list_that_cannot_be_is_400(api, query):
    assert api.get(f"{ACME}/datasets", params=query).status_code == 400


@pytest.mark.parametrize("key", [None, "", "unknown"])
def test_without_a_valid_key_there_is_nothing(api, key):
    answer = api.get(f"{ACME}/datasets", key=key)
    assert (answer.status_code, answer.json()["code"]) == (401, 16)


def test_an_expired_or_revoked_key_is_no_key(world, api):
    now = world.clock.now()
    api.add_key("expired", AccountName.of("acme"), expires_at=now)
    api.add_key("revoked", AccountName.of("acme"), revoked_at=now - timedelta(days=1))
    assert api.get(f"{ACME}/datasets", key="expired").status_code == 401
    assert api.get(f"{ACME}/datasets", key="revoked").status_code == 401


@pytest.mark.parametrize(
    "path",
    ["", "/datasets", "/datasets/d", "/supervisedFineTuningJobs", "/models", "/leases", "/watches"],
)
def test_another_accounts_key_learns_nothing_not_even_what_exists(world, dataset, api, path):
    world.make_account(AccountName.of("other"))
    api.add_key("key-other", AccountName.of("other"))
    theirs, nobodys = (
        api.get(f"/v1/accounts/{a}{path}", key="key-other") for a in ("acme", "nobody")
    )
    assert (theirs.status_code, nobodys.status_code) == (403, 403)
    assert theirs.json()["message"].replace("acme", "nobody") == nobodys.json()["message"]


def test_everybody_reads_the_catalogue_and_nothing_else_of_it(api):
    listed = api.get("/v1/accounts/fireworks/models").json()["models"]
    assert [m["name"] for m in listed] == ["accounts/fireworks/models/tiny-random"]
    assert api.get("/v1/accounts/fireworks/datasets").status_code == 403


def test_a_key_finds_its_account(api):
    answer = api.get("/verifyApiKey")
    assert answer.headers["x-fireworks-account-id"] == "acme"
    (account,) = api.get("/v1/accounts").json()["accounts"]
    assert account == api.get(ACME).json()
    assert account["email"].startswith("account-acme@")


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nowhere", 5), ("PUT", f"{ACME}/datasets/d", 12)]
)
def test_what_is_not_there_says_so_in_the_same_form(api, method, path, code):
    body = api.call(method, path).json()
    assert set(body) == {"code", "message", "details"} and body["code"] == code
