"""`sublet verify`: what is claimed, checked here and not believed."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from sublet.audit import BrokenChain, verify_chain
from sublet.cli.connection import api_options, connect
from sublet.cli.output import show


@click.group()
def verify() -> None:
    """Check what the API says against itself."""


@verify.command("audit")
@click.option("--expect", default="", metavar="SHA256", help="A hash that an earlier check showed.")
@api_options
def verify_audit(expect: str, output: str, **connection: str | None) -> None:
    """
    Check the chain of the account's audit log, entry by entry.

    Keep the hash that it shows: with --expect, the next check is held to it, so that not even the
    end of the log, or all of it, can have been written anew since.
    """
    with connect(**connection) as client:
        account = str(client.get_account()["name"])
        listed = client.list("auditLogs")
        entries = sorted(listed, key=lambda entry: int(entry["sequence"]))
    count, newest = verify_chain(account, entries)
    _check_expected(account, entries, expect)
    checked = {"name": account, "entries": count, "sha256": newest, "chain": "UNBROKEN"}
    show(checked, output)


def _check_expected(account: str, entries: Sequence[Mapping[str, Any]], expect: str) -> None:
    if expect and expect not in {entry["sha256"] for entry in entries}:
        raise BrokenChain(
            f"{account}: no entry has the hash {expect[:16]}... that was expected: the log was "
            "written anew or cut since"
        )
