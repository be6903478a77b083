"""
The rules of a policy: each yields what breaks it, in words.
"""

from collections.abc import Callable, Iterator

from terraform.plan import Plan

Rule = Callable[[Plan], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(check: Rule) -> Rule:
    RULES[check.__name__] = check
    return check


def broken(plan: Plan) -> list[str]:
    """Every breach of every rule that has been made, as `rule: what`."""
    return [f"{name}: {breach}" for name, check in RULES.items() for breach in check(plan)]
