"""What an account may see and choose of its own settings, and that each choice is on record."""

from dataclasses import replace

import pytest

ACME = "/v1/accounts/acme"
OBJECT = {"externalUrl": "gs://acme-data/data/train.jsonl"}


def choose(api, **settings):
    return api.call("PATCH", ACME, json=settings)


def test_an_account_begins_dark_by_default_and_not_challenged(api):
    account = api.get(ACME, params={"bucket": "acme-data"}).json()
    assert (account["alwaysOn"], account["challengeRequired"]) == (False, False)
    assert "challengeLabel" not in account


def test_what_is_chosen_is_answered_kept_and_on_record(world, api):
    world.advance(minutes=1)
    chosen = choose(api, alwaysOn=True).json()
    assert chosen == api.get(ACME).json()
    assert chosen["alwaysOn"] is True and chosen["updateTime"] > chosen["createTime"]
    choose(api, account={"always_on": False, "challengeRequired": None})
    entries = api.get(f"{ACME}/auditLogs", params={"filter": 'method="UpdateAccount"'}).json()
    said = [(entry["principal"], entry["message"]) for entry in entries["auditLogs"]]
    owner = "accounts/acme/users/owner"
    assert said == [
        (owner, "dark by default, not challenged"),
        (owner, "always on, not challenged"),
    ]


def test_the_label_that_the_account_shows_is_the_one_that_proves_the_bucket(world, api):
    world.drop()
    choose(api, challengeRequired=True)
    refused = api.post(f"{ACME}/datasets:verify", OBJECT).json()
    fact = next(fact for fact in refused["accessCheck"]["facts"] if fact["refuses"])
    label = api.get(ACME, params={"bucket": "acme-data"}).json()["challengeLabel"]
    assert fact["fact"] == "challenge_is_answered" and fact["fix"].endswith(label)
    assert api.get(ACME, params={"bucket": "other-data"}).json()["challengeLabel"] != label
    bucket, (name, _, value) = world.cloud.buckets["acme-data"], label.partition("=")
    bucket.metadata = replace(bucket.metadata, labels={name: value})
    assert api.post(f"{ACME}/datasets:verify", OBJECT).json()["usable"] is True


def test_a_challenge_is_not_lifted_by_whoever_has_an_admins_key(api):
    choose(api, challengeRequired=True)
    answer = choose(api, challengeRequired=False, alwaysOn=True)
    assert (answer.status_code, answer.json()["code"]) == (403, 7)
    account = api.get(ACME).json()
    assert (account["challengeRequired"], account["alwaysOn"]) == (True, False)


@pytest.mark.parametrize("settings", [{"alwaysOn": "perhaps"}, {"challengeRequired": []}])
def test_a_setting_that_is_none_is_refused(api, settings):
    assert choose(api, **settings).status_code == 400


def test_a_bucket_that_cannot_be_is_refused(api):
    assert api.get(ACME, params={"bucket": "No/Bucket"}).status_code == 400
