"""What holds for every operation: how names, bodies, lists, masks and errors are written."""

import base64

import pytest

ACME = "/v1/accounts/acme"
JOBS = f"{ACME}/supervisedFineTuningJobs"
DATASET = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl"}}
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random"}
WATCH = {"watchId": "w", "watch": {"bucket": "acme-data", "prefix": "in/"}}


@pytest.fixture
def dataset(world, api):
    world.drop()
    return api.post(f"{ACME}/datasets", DATASET).json()


@pytest.fixture
def jobs(dataset, world, api):
    """Three, a minute apart: j-0, j-1, j-2."""
    made = []
    for number in range(3):
        world.advance(minutes=1)
        path = f"{JOBS}?supervisedFineTuningJobId=j-{number}"
        made.append(api.post(path, {**SFT, "displayName": f"Job {number}"}).json())
    return made


@pytest.mark.parametrize(
    "path",
    [
        "/v1/accounts/acme/datasets/accounts%2Facme%2Fdatasets%2Fd",
        "/v1/accounts/accounts%2Facme/datasets/d",
        "/v1/accounts/acme/datasets/d",
        "/v1/accounts/acme/datasets/d/",
        "/v1/accounts/ac%6De/datasets/%64",
    ],
)
def test_an_id_may_be_a_full_name_and_is_decoded_after_the_route_is_chosen(dataset, api, path):
    assert api.get(path).json() == dataset


def test_a_full_name_of_another_account_is_not_followed(dataset, api):
    answer = api.get(f"{ACME}/datasets/accounts%2Fother%2Fdatasets%2Fd")
    assert (answer.status_code, answer.json()["code"]) == (403, 7)


def test_an_encoded_slash_chooses_no_other_route(dataset, api):
    assert api.get(f"{ACME}%2Fdatasets%2Fd").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", f"{ACME}/datasets/d:unknown", 404),
        ("POST", f"{JOBS}/j:explode", 405),
        ("PUT", f"{ACME}/datasets/d", 405),
        ("GET", f"{ACME}/datasets/D", 400),
        ("GET", f"{ACME}/datasets/{'d' * 64}", 400),
    ],
)
def test_what_is_not_there_says_so_in_the_same_form(api, method, path, status):
    answer = api.call(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "details"}


def test_a_job_may_be_wrapped_in_its_name_in_either_case(dataset, api):
    for number, key in enumerate(("supervisedFineTuningJob", "supervised_fine_tuning_job")):
        path = f"{JOBS}?supervisedFineTuningJobId=wrapped-{number}"
        body = api.post(path, {key: {**SFT, "lora_rank": 4}}).json()
        assert (body["dataset"], body["loraRank"]) == (dataset["name"], 4)


def test_a_dataset_may_be_unwrapped(world, api):
    world.drop()
    body = {"dataset_id": "flat", "external_url": "gs://acme-data/data/train.jsonl"}
    assert api.post(f"{ACME}/datasets", body).json()["name"].endswith("/flat")


def test_numbers_are_read_from_strings_and_int64_is_written_as_one(dataset, api):
    body = api.post(JOBS, {**SFT, "epochs": "2", "learningRate": "0.001"}).json()
    assert (body["epochs"], body["learningRate"]) == (2, 0.001)
    assert (dataset["exampleCount"], dataset["externalSizeBytes"].isdigit()) == ("4", True)


def test_a_delete_with_a_json_content_type_and_no_body_is_understood(dataset, api):
    headers = {"Authorization": "Bearer key-acme", "Content-Type": "application/json"}
    answer = api.http.request("DELETE", f"{ACME}/datasets/d", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})
    assert api.get(f"{ACME}/datasets/d").status_code == 404


@pytest.mark.parametrize("mask", ["name,state", "name%2Cstate", "*", "", "name, status.code"])
def test_a_read_mask_shows_what_it_names(dataset, api, mask):
    shown = api.get(f"{ACME}/datasets/d?readMask={mask}").json()
    if mask in ("*", ""):
        assert shown == dataset
    elif "status" in mask:
        assert shown == {"name": dataset["name"], "status": {"code": "OK"}}
    else:
        assert shown == {"name": dataset["name"], "state": "READY"}
    (listed,) = api.get(f"{ACME}/datasets?readMask={mask}").json()["datasets"]
    assert listed == shown


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('state="JOB_STATE_CREATING"', 3),
        ('state = "JOB_STATE_CREATING" AND display_name="Job 1"', 1),
        ('displayName="Job 1" AND displayName="Job 2"', None),
        ('dataset="accounts/acme/datasets/d"', 3),
        ('name="accounts/acme/supervisedFineTuningJobs/j-2"', 1),
        ('displayName="a AND b"', 0),
        ('baseModel="none"', 0),
        ('state="A" OR state="B"', None),
        ("state=A", None),
        ('account="accounts/other"', None),
        ('secretSha256="0"', None),
    ],
)
def test_a_filter_is_equality_joined_by_and_or_400(jobs, api, text, found):
    answer = api.get(JOBS, params={"filter": text})
    if found is None:
        assert (answer.status_code, answer.json()["code"]) == (400, 3)
    else:
        assert len(answer.json()["supervisedFineTuningJobs"]) == found


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("", "210"),
        ("createTime desc", "210"),
        ("create_time asc", "012"),
        ("name", "012"),
        ("name desc", "210"),
    ],
)
def test_lists_are_ordered_and_paged_without_loss_or_repeat(jobs, api, order, expected):
    seen, token = "", ""
    while True:
        params = {"orderBy": order, "pageSize": "1", "pageToken": token}
        page = api.get(JOBS, params=params).json()
        seen += "".join(job["name"][-1] for job in page["supervisedFineTuningJobs"])
        if not (token := page["nextPageToken"]):
            break
    assert seen == expected


def test_a_page_is_never_longer_than_200(jobs, api):
    assert api.get(JOBS, params={"pageSize": "100000"}).is_success


def test_a_list_says_how_many_there_are_on_all_pages_of_what_was_asked_for(jobs, api):
    first = api.get(JOBS, params={"pageSize": "1"}).json()
    last = api.get(JOBS, params={"pageSize": "2", "pageToken": first["nextPageToken"]}).json()
    assert (first["totalSize"], last["totalSize"], last["nextPageToken"]) == (3, 3, "")
    assert api.get(JOBS, params={"filter": 'displayName="Job 1"'}).json()["totalSize"] == 1


def test_what_is_not_known_is_ignored_and_named(dataset, api):
    body = {**SFT, "new_thing": 1, "nodes": 2, "trainer": {"deep": 1}, "a b": 0}
    answer = api.post(JOBS, body)
    assert answer.status_code == 200
    assert answer.headers["x-sublet-ignored-fields"] == "new_thing, nodes, trainer, ?"
    nested = {"datasetId": "d", "dataset": {**DATASET["dataset"], "newerField": {"x": 1}}}
    assert (
        api.post(f"{ACME}/datasets", nested).headers["x-sublet-ignored-fields"]
        == "dataset.newer_field"
    )
    assert "x-sublet-ignored-fields" not in api.post(JOBS, SFT).headers


def test_what_passes_says_when_to_ask_again_and_what_does_not_says_nothing(world, api):
    world.drop()
    world.put_to_rest(minutes=1)
    answer = api.post(f"{ACME}/datasets", DATASET)
    assert (answer.status_code, answer.json()["code"]) == (503, 14)
    world.advance(seconds=int(answer.headers["retry-after"]) - 1)
    assert api.post(f"{ACME}/datasets", DATASET).status_code == 503
    world.advance(seconds=1)
    assert api.post(f"{ACME}/datasets", DATASET).status_code == 200
    assert "retry-after" not in api.get(f"{ACME}/datasets/none").headers


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{ACME}/rlorTrainerJobs/j:executeTrainStep"),
        ("GET", f"{ACME}/dpoJobs/j:getMetricsFileEndpoint"),
        ("POST", f"{ACME}/reinforcementFineTuningJobs"),
        ("GET", f"{ACME}/evaluators"),
        ("PATCH", f"{ACME}/deployments/d:scale"),
        ("DELETE", f"{ACME}/deployedModels/m"),
        ("POST", f"{ACME}/secrets"),
        ("POST", f"{ACME}/datasets/d:upload"),
        ("POST", f"{ACME}/models"),
    ],
)
def test_what_is_not_offered_says_what_to_use_instead_and_is_not_asked_again(api, method, path):
    answer = api.call(method, path)
    assert (answer.status_code, answer.json()["code"]) == (501, 12)
    assert answer.headers["x-should-retry"] == "false"
    assert ";" in answer.json()["message"] or ":" in answer.json()["message"]


def test_a_body_that_is_no_json_or_endless_is_400(api):
    headers = {"Authorization": "Bearer key-acme"}
    for content in (
        b"{",
        b"\xff",
        b"[" * 100_000,
        b" " * (2**20 + 1),
        b'{"datasetId": "d", "dataset": {"displayName": "\\ud800"}}',
        b'{"datasetId": "d", "exampleCount": 1' + b"0" * 5000 + b"}",
        b'{"datasetId": NaN}',
    ):
        answer = api.http.post(f"{ACME}/datasets", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize(
    "content", [b"1", b"[]", b'["a"]', b'["a", 1]', b'["\\ud800", "b"]', b"[" * 9999, b"\xff"]
)
def test_a_page_token_that_no_list_gave_is_400(api, content):
    token = base64.urlsafe_b64encode(content).decode()
    answer = api.get(JOBS, params={"pageToken": token})
    assert (answer.status_code, answer.json()["code"]) == (400, 3)


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("datasets", DATASET, {**DATASET, "dataset": {**DATASET["dataset"], "displayName": "x"}}),
        ("supervisedFineTuningJobs?supervisedFineTuningJobId=j", SFT, {**SFT, "epochs": 2}),
        ("users?userId=u", {"role": "user"}, {"role": "admin"}),
        ("watches", WATCH, {**WATCH, "watch": {**WATCH["watch"], "enabled": False}}),
    ],
)
def test_a_create_may_be_repeated_and_another_of_the_same_name_is_409(
    dataset, world, api, path, body, other
):
    first = api.post(f"{ACME}/{path}", body)
    world.advance(minutes=1)
    assert first.status_code == 200 and api.post(f"{ACME}/{path}", body).json() == first.json()
    answer = api.post(f"{ACME}/{path}", other)
    assert (answer.status_code, answer.json()["code"]) == (409, 6)
    assert answer.headers["x-should-retry"] == "false"
