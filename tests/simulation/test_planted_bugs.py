"""A simulation that finds nothing proves nothing: each bug that is planted must be caught."""

from pathlib import Path

import pytest
from simulation.planted import BUGS, Bug, StalePatch
from simulation.runs import run

WITHIN = 1000
ROOT = Path(__file__).parents[2]


def catches(bug: Bug, seed: int) -> bool:
    return bool(run(seed).invariants & {*bug.breaks, "defect"})


def first_seed_that_catches(bug: Bug) -> int | None:
    """The one that did when the table was made; where the code has moved on, whichever does now."""
    with bug.planted():
        seeds = (bug.caught_by, *range(WITHIN))
        return next((seed for seed in seeds if catches(bug, seed)), None)


def line_of(bug: Bug, seed: int | None) -> str:
    return f"| {bug.name} | {', '.join(bug.breaks)} | {seed} |"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught_within_a_thousand_seeds(bug):
    seed = first_seed_that_catches(bug)
    print(line_of(bug, seed))
    assert seed is not None, f"{WITHIN} seeds saw nothing of it: {bug.name}"


def test_the_table_of_the_documents_is_this_one():
    lines = (ROOT / "docs" / "simulation.md").read_text().splitlines()
    shown = [line for line in lines if any(f"| {bug.name} |" in line for bug in BUGS)]
    assert shown == [line_of(bug, bug.caught_by) for bug in BUGS]


def test_a_bug_is_taken_back():
    assert not run(0).violations
    with BUGS[0].planted():
        assert run(0).violations
    assert not run(0).violations


def test_a_patch_of_code_that_has_changed_says_so():
    stale = Bug(name="x", breaks=(), patches=(("sweep:Sweep.run", "no such text", ""),))
    with pytest.raises(StalePatch, match="no such text"), stale.planted():
        pass
