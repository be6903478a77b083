"""What the documents say of the code is so."""

import re
from dataclasses import fields
from pathlib import Path

import click
from attacks import catalogue

from sublet.cli.main import sublet
from sublet.events import FACTS
from sublet.gcp.publisher import topic_of
from sublet.local.faults import MEANINGS

ROOT = Path(__file__).parents[2]


def test_every_fact_that_travels_is_listed_with_its_topic_and_its_fields():
    table = [
        line for line in (ROOT / "docs" / "events.md").read_text().splitlines() if "`dev." in line
    ]
    assert [re.findall(r"`([^`]+)`", line) for line in table] == [
        [fact.type, topic_of(fact), *(field.name for field in fields(fact))] for fact in FACTS
    ]


def test_every_command_that_the_readme_shows_exists():
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^    sublet (.+?)(?: *#.*)?$", readme, re.MULTILINE)
    assert len(shown) > 5
    for line in shown:
        command, *words = sublet, *line.split()
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(command), words.pop(0))
        assert command, line


def test_the_faults_that_there_are_are_explained():
    guide = (ROOT / "docs" / "how-to" / "local-cloud.md").read_text()
    assert re.findall(r"^\| `([a-z0-9-]+)` \| (.+) \|$", guide, re.MULTILINE) == [
        (fault.value, meaning) for fault, meaning in MEANINGS.items()
    ]


def test_every_attack_of_the_threat_model_is_shown_to_fail_by_a_test_that_exists():
    threats = (ROOT / "docs" / "threat-model.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", threats))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
    assert len(named) > 20
    assert named <= there, named - there


def test_the_threat_model_lists_every_attack_as_its_test_describes_it():
    threats = (ROOT / "docs" / "threat-model.md").read_text()
    numbers = [attack.number for attack in catalogue.attacks()]
    assert numbers == list(range(1, catalogue.NUM_ATTACKS + 1))
    assert threats == catalogue.with_table(threats), "run: python tests/attacks/catalogue.py"
