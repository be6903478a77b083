"""Whatever happens to an account's resources can be read afterwards, and cannot be rewritten."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sublet.audit import AuditEntry, AuditHead, BrokenChain, verify_chain
from sublet.auditing import acting_as
from sublet.memory.clock import MemoryClock
from sublet.names import AccountName
from sublet.ports import Query

ACME = "/v1/accounts/acme"
TOMORROW = (MemoryClock().now() + timedelta(days=1)).isoformat()
DATASET = {"datasetId": "d", "dataset": {"externalUrl": "gs://acme-data/data/train.jsonl"}}
SFT = {"dataset": "d", "baseModel": "accounts/fireworks/models/tiny-random", "outputModel": "m"}


@pytest.fixture
def history(world, api):
    """A dataset, a job that was trained, and what follows from it."""
    world.drop()
    api.post(f"{ACME}/datasets", DATASET)
    api.post(f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId=j", SFT)
    world.deliver()
    trainer = world.container()
    trainer.claim()
    trainer.finish()
    world.deliver()
    return entries(api)


def entries(api, **query):
    found, token = [], ""
    while True:
        params = {**query, "pageToken": token, "pageSize": "7"}
        page = api.get(f"{ACME}/auditLogs", params=params).json()
        found += page["auditLogs"]
        if not (token := page["nextPageToken"]):
            return found


def methods(found):
    return [entry["method"] for entry in reversed(found)]


def test_every_step_of_an_access_is_there_in_order(history):
    training = [e for e in reversed(history) if "leases/ls-2" in e["resource"]]
    assert [e["method"] for e in training] == [
        "OpenLease",
        "ClaimLease",
        "MintToken",
        "RevokeLease",
        "ProveEnd",
        "DeliverReceipt",
    ]
    assert {"CreateDataset", "CreateSupervisedFineTuningJob", "CreateModel"} <= set(
        methods(history)
    )


def test_an_entry_names_who_did_it(history, world, api):
    by_user = [e["method"] for e in history if e["principal"] == "accounts/acme/users/owner"]
    assert "CreateSupervisedFineTuningJob" in by_user
    assert all(e["principal"] for e in history)
    with acting_as("somebody"):
        world.registry.append(AccountName.of("acme"), history_action())
    assert entries(api)[0]["principal"] == "somebody"


def history_action():
    from sublet.audit import Action

    return Action(method="Test", resource="accounts/acme")


def test_a_refusal_is_kept_in_the_callers_account_and_nowhere_else(world, api):
    api.post(f"{ACME}/datasets", {"datasetId": "Bad Id", "dataset": {}})
    api.get("/v1/accounts/other/datasets")
    refusals = [e for e in entries(api) if e["status"]["code"] != "OK"]
    assert [e["status"]["code"] for e in refusals] == ["PERMISSION_DENIED", "INVALID_ARGUMENT"]
    assert "accounts/other" not in {entry.account for entry in world.all(AuditEntry)}


def test_the_use_of_a_key_is_noted_once_an_hour(world, api):
    for _ in range(5):
        api.get(f"{ACME}/datasets")
    world.advance(minutes=61)
    api.get(f"{ACME}/datasets")
    assert methods(entries(api)).count("UseApiKey") == 2


@pytest.mark.parametrize("why", ["expired", "revoked"])
def test_a_dead_key_that_is_tried_is_noted_once_an_hour(world, api, why):
    made = api.post(f"{ACME}/users/owner/apiKeys", {"apiKey": {"expireTime": TOMORROW}}).json()
    if why == "revoked":
        api.post(f"{ACME}/users/owner/apiKeys:delete", {"keyId": made["keyId"]})
    world.advance(days=365)
    for _ in range(5):
        assert api.get(f"{ACME}/datasets", key=made["key"]).status_code == 401
    tried = [entry for entry in entries(api) if entry["status"]["code"] == "UNAUTHENTICATED"]
    assert [entry["message"] for entry in tried] == [f"refused in this hour: it is {why}"]
    assert tried[0]["resource"].endswith(made["keyId"])
    world.advance(hours=2)
    api.get(f"{ACME}/datasets", key=made["key"])
    assert sum(e["status"]["code"] == "UNAUTHENTICATED" for e in entries(api)) == 2


def test_making_and_revoking_a_key_is_noted_without_the_key(api):
    made = api.post(f"{ACME}/users/owner/apiKeys", {}).json()
    api.post(f"{ACME}/users/owner/apiKeys:delete", {"keyId": made["keyId"]})
    found = entries(api)
    assert {"CreateApiKey", "DeleteApiKey"} <= set(methods(found))
    assert made["key"] not in str(found) and made["keyId"] in str(found)


def test_a_change_and_its_entry_are_there_together_or_not_at_all(world, api, monkeypatch):
    class Crash(Exception):
        pass

    def crash(*writes, announcing=()):
        raise Crash

    world.drop()
    before = len(world.all(AuditEntry))
    monkeypatch.setattr(world.registry._inner, "commit", crash)
    with pytest.raises(Crash):
        world.make_account(AccountName.of("x"))
    assert len(world.all(AuditEntry)) == before


def test_writers_that_race_leave_one_unbroken_chain(world):
    from concurrent.futures import ThreadPoolExecutor

    account = AccountName.of("new")
    with ThreadPoolExecutor(4) as pool:
        for _ in range(40):
            pool.submit(world.registry.append, account, history_action())
    found = [entry for entry in world.all(AuditEntry) if entry.account == account]
    found.sort(key=lambda entry: entry.sequence)
    assert [entry.sequence for entry in found] == list(range(1, 41))
    assert world.registry.get(AuditHead, account).record.sha256 == found[-1].sha256


def test_whoever_has_the_list_can_check_it_without_us(history):
    count, newest = verify_chain("accounts/acme", reversed(history))
    assert (count, newest) == (len(history), history[0]["sha256"])


@pytest.mark.parametrize("change", ["alter", "leave out", "put in", "cut the beginning"])
def test_a_log_that_was_tampered_with_is_found_out(history, change):
    chain = list(reversed(history))
    if change == "alter":
        chain[3] = {**chain[3], "principal": "somebody else"}
    elif change == "leave out":
        del chain[3]
    elif change == "put in":
        chain.insert(3, chain[3])
    else:
        del chain[0]
    with pytest.raises(BrokenChain):
        verify_chain("accounts/acme", chain)


def test_a_record_that_is_changed_in_the_registry_is_found_out_over_the_api(history, world, api):
    stored = world.registry.find(AuditEntry, Query(limit=1))[0]
    forged = replace(stored.record, action=replace(stored.record.action, message="nothing"))
    world.registry.commit(stored.replaced_by(forged))
    with pytest.raises(BrokenChain, match="entry 1"):
        verify_chain("accounts/acme", reversed(entries(api)))


def test_entries_can_be_asked_for_by_time_and_by_who(world, api):
    api.post(f"{ACME}/users?userId=a", {"role": "user"})
    world.advance(hours=2)
    middle = world.clock.now().isoformat().replace("+00:00", "Z")
    world.advance(hours=2)
    api.post(f"{ACME}/users?userId=b", {"role": "user"})
    late, early = entries(api, startTime=middle), entries(api, endTime=middle)
    assert "users/b" in str(late) and "users/a" not in str(late)
    assert "users/a" in str(early) and "users/b" not in str(early)
    assert entries(api, email="nobody") == []
    for query, found in (({"startTime": middle}, late), ({"endTime": middle}, early)):
        page = api.get(f"{ACME}/auditLogs", params={**query, "pageSize": "1"}).json()
        assert page["totalSize"] == len(found)
    none = {"startTime": middle, "endTime": middle}
    assert api.get(f"{ACME}/auditLogs", params=none).json() == {
        "auditLogs": [],
        "nextPageToken": "",
        "totalSize": 0,
    }
    far = {"startTime": "9999-12-31T23:59:59-12:00"}
    assert api.get(f"{ACME}/auditLogs", params=far).status_code == 400
    assert api.get(f"{ACME}/auditLogs", params={"startTime": "yesterday"}).status_code == 400
