"""
The OpenAPI document is true: whatever is sent to an operation, well formed or not, is answered with
a status, a type, headers and a body that the document names, and never with a fault of ours.

SUBLET_API_EXAMPLES=500 pytest tests/api/test_document.py asks longer than every run does.
"""

import os
import re
from pathlib import Path

import pytest
from api_world import Api
from memory_world import World, rows

from sublet.api.app import openapi_document
from sublet.leases import Lease

ACME = "/v1/accounts/acme"
EXAMPLES = int(os.environ.get("SUBLET_API_EXAMPLES", "5"))
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, methods in openapi_document()["paths"].items()
    for method in methods
]
SAID_ALREADY = {
    operation.replace("supervisedFineTuningJobs", jobs)
    for operation in OPERATIONS
    for jobs in ("rlorTrainerJobs", "dpoJobs")
    if "supervisedFineTuningJobs" in operation and operation[-4:] != "Jobs"
}
"""What all kinds of job have by the same functions is asked of one kind."""


@pytest.fixture(scope="module")
def schema():
    import schemathesis  # it takes a while, and only this file needs it

    return schemathesis.openapi.from_dict(openapi_document())


@pytest.fixture(scope="module")
def checks():
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    names = ("status_code", "content_type", "response_headers", "response_schema")
    return CHECKS.get_by_names([f"{name}_conformance" for name in names])


class Furnished:
    """One account with something of everything, to be aimed at."""

    def __init__(self) -> None:
        self.world = World()
        self.world.make_account()
        self.world.make_bucket()
        watch = self.world.watch()
        self.world.drop(rows())
        self.api = Api(self.world)
        dataset = {"externalUrl": "gs://acme-data/data/train.jsonl"}
        made = [
            self.api.post(f"{ACME}/datasets", {"datasetId": "d", "dataset": dataset}),
            self.api.post(f"{ACME}/users?userId=somebody", {"role": "user"}),
            self.api.post(f"{ACME}/users/somebody/apiKeys", {}),
            self.train("m"),
        ]
        assert [answer.status_code for answer in made] == [200] * len(made)
        key_id = made[2].json()["keyId"]
        self.there = {
            "account": "acme",
            "dataset": "d",
            "datasetId": "d",
            "job": "m",
            "model": "m",
            "warmStartFrom": "m",
            "watch": watch.name.id,
            "lease": self.world.all(Lease)[0].name.id,
            "user": "somebody",
            "keyId": key_id,
            "externalUrl": dataset["externalUrl"],
            "baseModel": "accounts/fireworks/models/tiny-random",
            "bucket": "acme-data",
        }

    def train(self, name: str):
        body = {"dataset": "d", "baseModel": "tiny-random", "outputModel": name}
        path = f"{ACME}/supervisedFineTuningJobs?supervisedFineTuningJobId={name}"
        answer = self.api.post(path, body)
        self.world.deliver()
        trainer = self.world.container()
        trainer.claim()
        trainer.finish()
        self.world.deliver()
        return answer

    def aim(self, value):
        """The same, with what is there in the place of what was made up."""
        if isinstance(value, dict):
            return {
                name: self.there[name]
                if name in self.there and isinstance(item, str)
                else self.aim(item)
                for name, item in value.items()
            }
        return value


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one not in SAID_ALREADY])
def test_no_answer_is_a_fault_or_undocumented(schema, checks, operation):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
    from schemathesis.generation import GenerationMode

    method, _, path = operation.partition(" ")
    found = schema[path][method]
    account = {"account": "acme"} if "{account}" in path else None
    cases = st.one_of(
        *(found.as_strategy(mode, path_parameters=account) for mode in GenerationMode)
    )
    furnished = Furnished()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, is_aimed=st.booleans())
    def ask(case, is_aimed):
        if is_aimed:
            case.path_parameters = furnished.aim(case.path_parameters)
            case.body = furnished.aim(case.body)
        furnished.world.advance(minutes=10)  # a data account rests between two leases
        case.headers = {**(case.headers or {}), "Authorization": "Bearer key-acme"}
        sent = case.as_transport_kwargs(base_url="http://testserver")
        sent.pop("cookies", None)
        if "data" in sent:
            sent["content"] = sent.pop("data")
        answer = furnished.api.http.request(**sent)
        assert answer.status_code < 500 or answer.headers.get("x-should-retry") == "false"
        case.validate_response(answer, checks=checks)

    ask()
    furnished.api.close()


def test_the_guide_names_every_operation_and_no_other():
    guide = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    rows = "\n".join(line for line in guide.splitlines() if line.startswith("| `"))
    named = [
        f"{method} {path.replace('...', '/v1/accounts/{account}')}"
        for method, path in re.findall(r"`([A-Z]+) (\S+)`", rows)
    ]
    assert sorted(named) == sorted(OPERATIONS)
