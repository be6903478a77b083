"""
The plans hold the policy, and each planted error breaks the rule that is there for it.
"""

import json

import pytest
from terraform import policy_of_access, policy_of_things  # noqa: F401  they make the rules
from terraform.plan import MODULES, kept, of_json
from terraform.planted import PLANTED
from terraform.rules import RULES, broken


@pytest.mark.parametrize("module", MODULES)
def test_the_configuration_holds_the_policy(module):
    assert broken(kept(module)) == []


@pytest.fixture(scope="module")
def plans() -> list[str]:
    return [json.dumps(kept(module).to_json()) for module in MODULES]


@pytest.mark.parametrize("error", PLANTED)
def test_an_error_is_caught(error, plans):
    rule, plant = PLANTED[error]
    caught = []
    for text in plans:
        resources = json.loads(text)
        try:
            plant(resources)
        except KeyError:
            continue  # it is an error of the other module
        caught += broken(of_json(resources))
    assert [breach for breach in caught if breach.startswith(f"{rule}: ")], caught


def test_every_rule_catches_something():
    assert {rule for rule, _ in PLANTED.values()} == set(RULES)
