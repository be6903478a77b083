"""
`sublet doctor`: the access check, fact by fact. It reads what a job would read, under a lease, and
changes nothing.
"""

from collections.abc import Mapping
from typing import Any, Final

import click

from sublet.cli.connection import Session, talks_to_api

REFUSED: Final = 4
"""The exit code of an access check that would refuse, as that of the refusal itself."""
UNUSABLE: Final = 1
_VERDICTS: Final = {
    "PROVED": "Proved",
    "REFUTED": "Refuted",
    "NOT_VISIBLE": "Not visible",
}


@click.command()
@click.argument("subject", metavar="gs://BUCKET/OBJECT|DATASET")
@talks_to_api
def doctor(session: Session, *, subject: str) -> None:
    """
    Check whether a job may read a file, and what to grant.

    Every fact is proved, refuted or not visible to sublet, and those that refuse have the command
    that mends them. Exit code 0 if a job can use the file, 4 if a fact refuses, 1 if a row does.
    """
    if subject.startswith("gs://"):
        path = f"/v1/accounts/{session.api.account_id}/datasets:verify"
        report = session.api.call("POST", path, json={"externalUrl": subject}, is_idempotent=True)
    else:
        report = session.api.do("datasets", subject, ":verify", is_idempotent=True)
    if session.is_json:
        session.show(report)
    else:
        click.echo("\n".join(_diagnosis(report)))
    if any(fact["refuses"] for fact in report["accessCheck"]["facts"]):
        raise click.exceptions.Exit(REFUSED)
    if not report["usable"]:
        raise click.exceptions.Exit(UNUSABLE)


def _diagnosis(report: Mapping[str, Any]) -> list[str]:
    """By verdict; within each, those that refuse come first."""
    facts = report["accessCheck"]["facts"]
    lines = [f"External Url: {report['externalUrl']}"]
    for verdict, title in _VERDICTS.items():
        found = [fact for fact in facts if fact["verdict"] == verdict]
        if found:
            lines += ["", f"{title}:"]
        for fact in sorted(found, key=lambda fact: not fact["refuses"]):
            lines += _fact(fact)
    return [*lines, "", _conclusion(report)]


def _conclusion(report: Mapping[str, Any]) -> str:
    facts = report["accessCheck"]["facts"]
    if refusing := sum(1 for fact in facts if fact["refuses"]):
        return f"Refused: {refusing} of {len(facts)} facts stand against it."
    if not report["usable"]:
        return f"Unusable: a job may read it, but {report['status']['message']}"
    return "Healthy: a job may read it."


def _fact(fact: Mapping[str, Any]) -> list[str]:
    mark = "x" if fact["refuses"] else "+" if fact["verdict"] == "PROVED" else "-"
    lines = [f"  {mark} {fact['fact']}: {fact['evidence']}"]
    if fact["fix"] and fact["verdict"] != "PROVED":
        lines.append(f"      run: {fact['fix']}")
    return lines
