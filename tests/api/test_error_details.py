"""What a program reads in a refusal, so that it need not read the sentence."""

import pytest

ACME = "/v1/accounts/acme"
DATASET = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl"}}
VIEWER = "roles/storage.objectViewer"


def details_of(answer) -> dict[str, dict]:
    found = {one["@type"].removeprefix("type.googleapis.com/google.rpc."): one for one in answer}
    assert len(found) == len(answer), "each type of detail is there once at most"
    return found


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({}, "datasetId", "missing required field"),
        ({"datasetId": "d", "dataset": 3}, "dataset", "Expected `object`"),
        ({"datasetId": "d", "dataset": {}}, "dataset.externalUrl", "is required"),
        (
            {"datasetId": "d", "dataset": {"external_url": 3}},
            "dataset.externalUrl",
            "Expected `str",
        ),
    ],
)
def test_a_field_that_is_wrong_is_named_as_the_request_has_it(api, body, field, words):
    answer = api.post(f"{ACME}/datasets", body).json()
    (violation,) = details_of(answer["details"])["BadRequest"]["fieldViolations"]
    assert violation["field"] == field and violation["description"].find(words) >= 0


@pytest.mark.parametrize(
    "query",
    [{"pageSize": "x"}, {"orderBy": "size"}, {"filter": "a"}, {"pageToken": "x"}],
    ids=lambda query: next(iter(query)),
)
def test_a_part_of_the_query_that_is_wrong_is_named(api, query):
    answer = api.get(f"{ACME}/datasets", params=query).json()
    (violation,) = details_of(answer["details"])["BadRequest"]["fieldViolations"]
    assert violation == {"field": next(iter(query)), "description": answer["message"]}


def test_a_body_that_is_no_object_names_no_field(api):
    assert api.post(f"{ACME}/datasets", []).json()["details"] == []


def test_a_bucket_that_does_not_prove_enough_names_fact_principal_and_command(world, api):
    version = world.drop()
    world.cloud.set_bindings("acme-data", ())
    answer = api.post(f"{ACME}/datasets", DATASET).json()
    found = details_of(answer["details"])
    info, violations = found["ErrorInfo"], found["PreconditionFailure"]["violations"]
    assert (info["reason"], info["domain"]) == ("ACCESS_NOT_PROVED", "sublet.dev")
    email = api.get(ACME).json()["email"]
    told = {"fact": "account_may_read", "verdict": "REFUTED", "principal": email}
    assert {**told, "url": version.url}.items() <= info["metadata"].items()
    command = info["metadata"]["command"]
    assert f"--member=serviceAccount:{email} --role={VIEWER}" in command
    assert command in answer["message"]
    assert violations[0] == {
        "type": "account_may_read",
        "subject": email,
        "description": f"{email} lacks {VIEWER}; run: {command}",
    }
    assert f"(and {len(violations) - 1} more)" in answer["message"]


def test_a_role_that_may_not_is_told_which_may(world, api):
    api.post(f"{ACME}/users?userId=reader", {"role": "inference-user"})
    key = api.post(f"{ACME}/users/reader/apiKeys", {}).json()["key"]
    info = details_of(api.get(f"{ACME}/datasets", key=key).json()["details"])["ErrorInfo"]
    assert (info["reason"], info["metadata"]["right"]) == ("ROLE_MAY_NOT", "READ")
    assert info["metadata"]["able"] == "admin, user, contributor"


def test_what_will_pass_says_when_to_ask_again(world, api):
    world.drop()
    world.put_to_rest(minutes=1)
    answer = api.post(f"{ACME}/datasets", DATASET)
    assert answer.status_code == 503
    delay = details_of(answer.json()["details"])["RetryInfo"]["retryDelay"]
    assert delay == f"{answer.headers['retry-after']}s" != "1s"
