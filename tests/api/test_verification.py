"""What would come of a file can be asked before anything is made of it, and asked again after."""

import pytest
from memory_world import CREATOR

from sublet.facts import FACTS

ACME = "/v1/accounts/acme"
URL = "gs://acme-data/data/train.jsonl"
DATASET = {"datasetId": "d", "dataset": {"externalUrl": URL}}
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random"}


def verify(api, url=URL):
    return api.post(f"{ACME}/datasets:verify", {"externalUrl": url})


def refusing(report):
    return {fact["fact"] for fact in report["accessCheck"]["facts"] if fact["refuses"]}


def test_a_file_that_would_do_is_reported_and_not_registered(world, api):
    version = world.drop()
    report = verify(api).json()
    assert (report["usable"], report["status"]["code"]) == (True, "OK")
    assert report["externalGeneration"] == str(version.generation)
    assert report["rowCheck"]["numRows"] == "4"
    assert refusing(report) == set()
    assert api.get(f"{ACME}/datasets").json()["totalSize"] == 0


def test_what_refuses_is_a_report_and_no_error(world, api):
    version = world.drop()
    world.cloud.set_bindings(version.bucket, ())
    answer = verify(api)
    assert answer.status_code == 200
    report = answer.json()
    assert (report["usable"], report["status"]["code"]) == (False, "PERMISSION_DENIED")
    refused = [fact for fact in report["accessCheck"]["facts"] if fact["refuses"]]
    assert "add-iam-policy-binding" in " ".join(fact["fix"] for fact in refused)
    assert verify(api, "gs://acme-data/data/").json()["usable"] is False


@pytest.mark.parametrize("is_granted", [True, False])
def test_every_required_fact_is_in_the_report_even_where_nobody_could_look(world, api, is_granted):
    world.drop()
    if not is_granted:
        world.cloud.set_bindings("acme-data", ())
    reported = {fact["fact"] for fact in verify(api).json()["accessCheck"]["facts"]}
    assert {fact.name for fact in FACTS if fact.rule.startswith("REQUIRED")} <= reported


def test_a_bucket_that_may_be_read_and_not_written_to_is_of_no_use(world, api):
    version = world.drop()
    bindings = world.cloud.policy(version.bucket).bindings
    world.cloud.set_bindings(version.bucket, tuple(b for b in bindings if b.role != CREATOR))
    report = verify(api).json()
    assert (report["usable"], report["status"]["code"]) == (False, "PERMISSION_DENIED")
    assert "objectCreator" in report["status"]["message"]
    assert report["rowCheck"]["numRows"] == "4"


def test_rows_that_are_none_are_named_by_line(world, api):
    world.drop(b'{"messages": []}\nsecret words\n')
    report = verify(api).json()
    assert (report["usable"], report["status"]["code"]) == (False, "INVALID_ARGUMENT")
    assert [problem["line"] for problem in report["rowCheck"]["problems"]] == ["1", "2"]
    assert "secret" not in str(report)


def test_a_file_that_is_not_there_is_a_report_too(world, api):
    report = verify(api).json()
    assert (report["usable"], report["status"]["code"]) == (False, "NOT_FOUND")
    assert report["accessCheck"]["facts"]


def test_a_folder_is_looked_into_as_a_create_would(world, api):
    world.drop()
    assert verify(api, "gs://acme-data/data/").json()["externalUrl"] == URL
    world.advance(minutes=10)
    world.drop(name="data/second.jsonl")
    assert verify(api, "gs://acme-data/data/").status_code == 400
    assert verify(api, "http://acme-data/data").status_code == 400


def test_looking_is_under_a_lease_that_ends(world, api):
    world.drop()
    lease = verify(api).json()["lease"]
    assert api.get(f"/v1/{lease}").json()["state"] == "REVOKED"


@pytest.fixture
def dataset(world, api):
    world.drop()
    made = api.post(f"{ACME}/datasets", DATASET)
    world.advance(minutes=10)
    return made.json()


def test_a_dataset_keeps_its_newest_report_and_jobs_follow_it(dataset, world, api):
    bindings = world.cloud.policy("acme-data").bindings
    world.cloud.set_bindings("acme-data", ())
    report = api.post(f"{ACME}/datasets/d:verify", {}).json()
    assert (report["usable"], report["dataset"]) == (False, dataset["name"])
    shown = api.get(f"{ACME}/datasets/d").json()
    assert shown["accessCheck"]["checkTime"] > dataset["accessCheck"]["checkTime"]
    assert api.post(f"{ACME}/supervisedFineTuningJobs", SFT).status_code == 403
    world.cloud.set_bindings("acme-data", bindings)
    assert api.post(f"{ACME}/datasets/d:verify", {}).json()["usable"] is True
    assert api.post(f"{ACME}/supervisedFineTuningJobs", SFT).status_code == 200


def test_a_dataset_is_checked_by_the_generation_that_it_is_of(dataset, world, api):
    world.drop()
    report = api.post(f"{ACME}/datasets/d:verify", {}).json()
    assert report["externalUrl"] == URL
    assert report.get("externalGeneration") in (None, dataset["externalGeneration"])
