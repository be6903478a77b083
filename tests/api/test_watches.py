"""A watch is made, paused, given other settings, and taken away; what it covers stays."""

import pytest

from sublet.jobs import Job
from sublet.watches import Watch

WATCHES = "/v1/accounts/acme/watches"
TEMPLATE = {"baseModel": "accounts/fireworks/models/tiny-random", "epochs": 2, "loraRank": 4}
NEW = {
    "watchId": "w",
    "watch": {"bucket": "acme-data", "prefix": "in/", "trainingTemplate": TEMPLATE},
}


@pytest.fixture
def watch(api):
    answer = api.post(WATCHES, NEW)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_watch_that_is_off_registers_nothing_and_one_that_is_on_again_does(watch, world, api):
    off = api.call("PATCH", f"{WATCHES}/w", json={"enabled": False}).json()
    assert off["enabled"] is False
    assert world.announce(world.drop(name="in/a.jsonl")) is None
    api.call("PATCH", f"{WATCHES}/w", json={"watch": {"enabled": True}})
    assert world.announce(world.drop(name="in/b.jsonl")).state == "READY"


def test_settings_that_are_changed_leave_the_others_as_they_were(watch, world, api):
    world.advance(minutes=1)
    changed = api.call("PATCH", f"{WATCHES}/w", json={"trainingTemplate": {"epochs": 3}}).json()
    template = changed["trainingTemplate"]
    assert (template["epochs"], template["loraRank"], template["outputPrefix"]) == (3, 4, "models/")
    assert changed["updateTime"] > watch["updateTime"] == watch["createTime"]
    world.announce(world.drop(name="in/a.jsonl"))
    assert world.the(Job).settings.epochs == 3


def test_a_change_to_what_is_so_already_changes_nothing(watch, world, api):
    world.advance(minutes=1)
    same = {"bucket": "acme-data", "prefix": "in/", "enabled": True, "trainingTemplate": TEMPLATE}
    assert api.call("PATCH", f"{WATCHES}/w", json=same).json() == watch


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bucket": "other-data"}, "create another watch"),
        ({"prefix": "elsewhere/"}, "create another watch"),
        ({"trainingTemplate": {"epochs": 0}}, "epochs"),
        ({"trainingTemplate": {"baseModel": "none"}}, "does not exist"),
        ({"trainingTemplate": {"outputPrefix": "in/models/"}}, "overlap"),
        ({"trainingTemplate": {"earlyStop": True}}, "nothing to stop by"),
    ],
)
def test_a_change_that_cannot_be_is_400_and_leaves_the_watch_alone(
    watch, world, api, change, words
):
    answer = api.call("PATCH", f"{WATCHES}/w", json=change)
    assert (answer.status_code, answer.json()["code"]) == (400, 3)
    assert words in answer.json()["message"]
    assert api.get(f"{WATCHES}/w").json() == watch


def test_a_watch_without_a_template_needs_a_base_model_to_get_one(api):
    api.post(WATCHES, {"watchId": "w", "watch": {"bucket": "acme-data", "prefix": "in/"}})
    answer = api.call("PATCH", f"{WATCHES}/w", json={"trainingTemplate": {"epochs": 2}})
    assert answer.status_code == 400 and "baseModel is required" in answer.json()["message"]


def test_a_watch_that_is_deleted_sees_no_new_file_and_its_jobs_go_on(watch, world, api):
    world.announce(world.drop(name="in/a.jsonl"))
    assert api.call("DELETE", f"{WATCHES}/w").json() == {}
    assert api.get(f"{WATCHES}/w").status_code == 404
    assert world.announce(world.drop(name="in/b.jsonl")) is None
    assert not world.the(Job).is_over
    assert [watch.name.id for watch in world.all(Watch)] == ["w-acme-data-data"]


def test_what_was_done_to_a_watch_is_in_the_audit_log(watch, api):
    api.call("PATCH", f"{WATCHES}/w", json={"enabled": False})
    api.call("DELETE", f"{WATCHES}/w")
    entries = api.get("/v1/accounts/acme/auditLogs").json()["auditLogs"]
    done = [(e["method"], e["message"]) for e in entries if e["resource"].endswith("watches/w")]
    assert done == [
        ("DeleteWatch", "gs://acme-data/in/ is off"),
        ("UpdateWatch", "gs://acme-data/in/ is off"),
        ("CreateWatch", "gs://acme-data/in/ is on"),
    ]
