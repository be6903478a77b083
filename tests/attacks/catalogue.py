"""
The attacks that sublet is built against: each is a test that bears its name, says what stops it and
what stays open, and is one row of docs/threat-model.md.

`python tests/attacks/catalogue.py` writes that table anew.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from inspect import isfunction
from pathlib import Path

HERE = Path(__file__).parent
THREAT_MODEL = HERE.parents[1] / "docs" / "threat-model.md"
BEGIN, END = "<!-- attacks: written by tests/attacks/catalogue.py -->", "<!-- /attacks -->"
NUM_ATTACKS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    number: int
    what: str
    stopped_by: str
    stays_open: str
    test: str

    def __str__(self) -> str:
        cells = (str(self.number), self.what, self.stopped_by, f"`{self.test}`", self.stays_open)
        return f"| {' | '.join(cells)} |"


def attack(number: int, what: str, *, stopped_by: str, stays_open: str = "") -> Callable:
    """Makes a test the row of an attack; the test shows the legitimate twin passing as well."""

    def mark(test: Callable) -> Callable:
        test.attack = Attack(
            number=number,
            what=what,
            stopped_by=stopped_by,
            stays_open=stays_open or "-",
            test=test.__name__,
        )
        return test

    return mark


def attacks() -> Iterator[Attack]:
    """Every one, in the order of its number."""
    found = [
        thing.attack
        for path in sorted(HERE.glob("test_*.py"))
        for thing in vars(import_module(f"attacks.{path.stem}")).values()
        if isfunction(thing) and hasattr(thing, "attack")
    ]
    yield from sorted(found, key=lambda one: one.number)


def table() -> str:
    head = "| # | attack | what stops it | test | what stays open, and why |"
    return "\n".join([head, "|---|---|---|---|---|", *map(str, attacks())])


def with_table(document: str) -> str:
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    THREAT_MODEL.write_text(with_table(THREAT_MODEL.read_text()))
