"""`sublet verify`: what is claimed, checked here and not believed."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import click

from sublet.audit import BrokenChain, verify_chain
from sublet.cli.connection import api_options, connect
from sublet.cli.durations import Duration
from sublet.cli.output import show
from sublet.cli.stack_control import ask_stack, data_dir_option, output_option
from sublet.errors import FailedPrecondition, InvalidRequest


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


@verify.command("receipt")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--key",
    default="",
    metavar="SHA256|PEM",
    help="The signer's public key: its fingerprint, or the file that gcloud prints it into.",
)
@output_option
def verify_receipt(file: Path, key: str, output: str) -> None:
    """
    Check a receipt offline: that it was signed, and that nothing in it was changed since.

    FILE is the receipt from your bucket, or what `sublet get receipt JOB -o json` printed. The key
    in the file shows that the file is whole; with --key it shows whose it is: give the one that you
    have from the operator of the deployment.
    """
    from sublet.signing import verify_statement
    from sublet.statements import RECEIPT, ForgedStatement, parse_statement

    statement = parse_statement(_signed_text(file))
    if statement.kind != RECEIPT:
        raise InvalidRequest(f"this is a {statement.kind}; expected a {RECEIPT}")
    verify_statement(statement)
    expected = _fingerprint(key) if key else ""
    if expected not in ("", statement.key_fingerprint):
        raise ForgedStatement(
            f"the receipt is signed with key {statement.key_fingerprint}; expected {expected}"
        )
    content = statement.content
    checked = {
        "job": content.get("job", ""),
        "externalUrl": content.get("externalUrl", ""),
        "externalGeneration": content.get("externalGeneration", ""),
        "accessIsRefused": content.get("accessIsRefused", False),
        "signature": "VALID",
        "signer": statement.key_fingerprint,
        "signerIs": "AS EXPECTED" if key else "NOT COMPARED: give --key",
    }
    show(checked, output)


@verify.command("revocation")
@click.option("--service-account", required=True, metavar="EMAIL", help="A scratch account.")
@click.option("--bucket", required=True, help="A bucket whose policy you may change.")
@click.option("--lead", type=Duration(), default="10m", show_default=True)
@click.option("--every", type=Duration(), default="0.5s", show_default=True)
@click.option("--give-up", type=Duration(), default="15m", show_default=True)
@click.option("--local", "is_local", is_flag=True, help="Measure the local cloud, not Google's.")
@data_dir_option
@output_option
def verify_revocation(
    service_account: str,
    bucket: str,
    lead: timedelta,
    every: timedelta,
    give_up: timedelta,
    is_local: bool,
    data_dir: Path,
    output: str,
) -> None:
    """
    Measure how long it takes until access that was taken away is refused.

    The account is granted an object, disabled, enabled, and its grant is taken back and let expire,
    while its tokens are tried. Use an account that nothing else uses: it is refused meanwhile. You
    need the rights to impersonate and to disable it, and to change the bucket's policy. A grant
    with an end is made --lead before it, so that it is in force by then.
    """
    from sublet.clock import MovableClock, SystemClock
    from sublet.gcp.endpoints import Endpoints
    from sublet.gcp.identity import Identity
    from sublet.gcp.revocation_drill import DrillTerms, RevocationDrill
    from sublet.gcp.sessions import Session
    from sublet.names import Email
    from sublet.ports import Clock

    if is_local:
        at = ask_stack(data_dir, "GET", "/status")["cloud"]["endpoints"]
        endpoints = Endpoints(
            iam=at["iam"], iam_credentials=at["iam"], sts=at["sts"], storage=at["storage"]
        )
        session = Session()
        clock: Clock = MovableClock(data_dir / "clock-offset")
    else:
        endpoints = Endpoints()
        session, clock = Identity(endpoints).session, SystemClock()
    drill = RevocationDrill(
        endpoints=endpoints,
        session=session,
        account=Email(service_account),
        bucket=bucket,
        clock=clock,
        sleep=lambda time_left: sleep(time_left.total_seconds()),
        terms=DrillTerms(every=every, give_up=give_up, lead=lead),
    )
    measured = {}
    for one in drill.run():
        took = f"{one.took.total_seconds():.1f} s" if one.took is not None else f"not in {give_up}"
        measured[one.what] = took
        if output == "text":
            click.echo(f"{one.what + ':':64}{took}")
    if output == "json":
        show(measured, output)


def _signed_text(file: Path) -> str:
    """The statement itself, or the one that the API's answer carries."""
    text = file.read_text()
    try:
        answer = json.loads(text)
    except ValueError:
        return text
    if not isinstance(answer, dict) or "signedReceipt" not in answer:
        return text
    if not answer["signedReceipt"]:
        raise FailedPrecondition(
            "the receipt is not signed yet: some access that it is about is not refused yet"
        )
    return str(answer["signedReceipt"])


def _fingerprint(key: str) -> str:
    """Of a public key that is given as a file; anything else is a fingerprint already."""
    from sublet.signing import fingerprint_of_pem

    file = Path(key)
    return fingerprint_of_pem(file.read_bytes()) if file.is_file() else key.lower()


def _check_expected(account: str, entries: Sequence[Mapping[str, Any]], expect: str) -> None:
    if expect and expect not in {entry["sha256"] for entry in entries}:
        raise BrokenChain(
            f"{account}: no entry has the hash {expect[:16]}... that was expected: the log was "
            "written anew or cut since"
        )
