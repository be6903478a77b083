"""
Which tests share a worker. What takes seconds of CPU to make (a stack, Google's emulators in Java,
Terraform's providers, torch) is made by one worker and not by each.
"""

from typing import Final

import pytest
from xdist.scheduler import LoadScopeScheduling

STACKS: Final = {"stack", "own_stack"}
"""The fixtures of which each makes one; 6 s of CPU."""
_TOGETHER: Final = {
    "promises": ("tests/promises/",),
    "stack": (
        "tests/cli/test_faults.py",
        "tests/cli/test_local.py",
        "tests/cli/test_readme.py",
        "tests/cli/test_verify_audit.py",
        "tests/load/",
        "tests/local_cloud/test_other_clients.py",
        "tests/sdk/",
        "tests/terraform/test_deploying.py",
    ),
    "trainer": ("tests/trainer/",),
    "firestore": ("tests/contracts/test_firestore.py", "tests/contracts/test_registry.py"),
    "terraform": ("tests/terraform/",),
}
_LONGEST: Final = ("promises", "stack", "trainer")
_EACH_ALONE: Final = "tests/simulation/"


class Together(LoadScopeScheduling):
    """Files stay together, and some files with others. (loadgroup has no effect on pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    for group, places in _TOGETHER.items():
        if nodeid.startswith(places):
            return group
    return nodeid if nodeid.startswith(_EACH_ALONE) else nodeid.partition("::")[0]


def longest_first(items: list[pytest.Item]) -> None:
    """So that none of them is waited for alone."""
    items.sort(key=lambda item: group_of(item.nodeid) not in _LONGEST)


def verify_stacks_are_together(items: list[pytest.Item]) -> None:
    """
    Raises:
        UsageError: a file makes a stack of its own; says where to name it.
    """
    for item in items:
        group = group_of(item.nodeid)
        if STACKS & set(getattr(item, "fixturenames", ())) and group not in ("promises", "stack"):
            raise pytest.UsageError(
                f"{item.nodeid} wants a stack, and so another would be started; name its file in "
                "tests/together.py"
            )
