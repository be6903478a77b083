"""
Firestore refuses a query that has no index. Every world of these tests has a registry that does the
same (indexed_registry), so that whichever test first makes a new query fails; here, all are made at
once, and Terraform's list is held to them.
"""

import itertools
import json

import pytest
from api_world import Api
from indexed_registry import FILE, IndexedRegistry, MissingIndex, as_text, listed
from memory_world import ACME, World

from sublet.api.app import openapi_document
from sublet.datasets import Dataset
from sublet.gcp.firestore_queries import indexes_for
from sublet.jobs import Job
from sublet.memory.clock import MemoryClock
from sublet.memory.registry import MemoryRegistry
from sublet.models import Model, ModelKind
from sublet.ownership import Ownership
from sublet.ports import Query
from sublet.watches import Watch

ORDERS = ("", "createTime", "createTime desc", "name", "name desc")
PLACES = {"account": "acme", "user": "owner"}
_EVERYTHING = "/v1/accounts/acme"


@pytest.fixture
def used(monkeypatch):
    """All indexes that are needed from here on, listed or not."""
    needed = set()

    def note(registry, kind, query):
        needed.update(indexes_for(query))

    monkeypatch.setattr(IndexedRegistry, "_verify_indexed", note)
    return needed


@pytest.fixture
def api(used):
    world = World()
    world.make_account()
    world.make_bucket()
    world.watch()
    made = Api(world)
    yield made
    made.close()


def test_terraform_lists_the_indexes_that_queries_need_and_no_other(api, used, tmp_path):
    ask_every_list(api)
    live_a_life(api)
    needed = sorted((index.to_json() for index in used), key=as_text)
    correct = tmp_path / FILE.name
    correct.write_text("[\n" + ",\n".join(f"  {json.dumps(index)}" for index in needed) + "\n]\n")
    assert listed() == set(map(as_text, needed)), f"run: cp {correct} {FILE}"


def ask_every_list(api) -> None:
    """Each list that the document shows, in each order, by each of its filters and by all."""
    paths = openapi_document()["paths"]
    lists = [
        path.format(**PLACES)
        for path, operations in paths.items()
        if any(
            one.get("name") == "orderBy" for one in operations.get("get", {}).get("parameters", [])
        )
    ]
    assert len(lists) >= 7
    for path in lists:
        terms = [f'{field}="x"' for field in filters_of(api, path)]
        for order, filter_ in itertools.product(ORDERS, {"", *terms, " AND ".join(terms)}):
            answer = api.get(path, params={"orderBy": order, "filter": filter_})
            assert answer.is_success, answer.text


def filters_of(api, path: str) -> list[str]:
    """Those that the refusal of another one names; none where any filter is as good as none."""
    refused = api.get(path, params={"filter": 'none="x"'})
    if refused.is_success:
        return []
    return refused.json()["message"].rpartition("is one of ")[2].split(", ")


def live_a_life(api) -> None:
    """From a file to an adapter, and everything deleted that was made."""
    world = api.world
    world.announce(world.drop())
    world.deliver()
    container = world.container()
    container.claim()
    world.sweep.run()
    container.finish()
    world.deliver()
    world.advance(hours=2)
    world.sweep.run()
    Ownership(world.registry, world.cloud).set_aside(ACME, world.cloud.metadata("acme-data"))
    (model,) = (m for m in world.all(Model) if m.kind is not ModelKind.HF_BASE_MODEL)
    job, dataset, watch = world.the(Job).name, world.the(Dataset).name, world.the(Watch).name
    key = f"{_EVERYTHING}/users/second/apiKeys"
    done = [
        api.get(f"/v1/{job}:receipt"),
        api.call("DELETE", f"/v1/{watch}"),
        api.call("DELETE", f"/v1/{dataset}"),
        api.call("DELETE", f"/v1/{model.name}"),
        api.call("DELETE", f"/v1/{job}"),
        api.post(f"{_EVERYTHING}/users?userId=second", {"role": "admin"}),
        made := api.post(key, {}),
        api.post(f"{key}:delete", {"keyId": made.json()["keyId"]}),
        api.call("PATCH", f"{_EVERYTHING}/users/second", json={"role": "user"}),
    ]
    assert [answer.text for answer in done if not answer.is_success] == []


def test_a_query_without_its_index_is_refused_as_firestore_would():
    registry = IndexedRegistry(MemoryRegistry(MemoryClock()))
    for order in ("created_at", "attention"):
        query = Query(where={"account": ACME, "colour": "red"}, order_by=order)
        for ask in (registry.find, registry.count):
            with pytest.raises(MissingIndex, match=r"Job: .*index\.colour"):
                ask(Job, query)


def test_what_one_field_can_answer_needs_no_index_of_its_own():
    """Firestore has an index of each field, and an order by what is equal is none."""
    assert not indexes_for(Query())
    assert not indexes_for(Query(order_by="name", descending=True))
    assert not indexes_for(Query(where={"account": ACME}, order_by="account"))


def test_filters_are_merged_from_one_index_each():
    where = {"account": ACME, "state": "READY", "display_name": "d"}
    needed = indexes_for(Query(where=where, descending=True))
    assert {index.equal for index in needed} == {("account", "state"), ("account", "display_name")}
    assert {(index.order_by, index.descending) for index in needed} == {("created_at", True)}
