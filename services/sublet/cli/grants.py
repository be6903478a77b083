"""What a customer grants, as the gcloud lines that do it."""

from collections.abc import Mapping
from typing import Any, Final

import click

ANY_BUCKET: Final = "YOUR_BUCKET"
_ROLE: Final = "subletVerifier"


def show_account(account: Mapping[str, Any], bucket: str, *, until: str = "") -> None:
    click.echo(f"Name: {account['name']}")
    click.echo(f"Display Name: {account['displayName']}")
    click.echo(f"Email: {account['email']}")
    click.echo(f"State: {account['state']}")
    click.echo(f"Project Numbers: {', '.join(account['projectNumbers'])}")
    click.echo(f"Always On: {_word(account.get('alwaysOn'))}")
    click.echo(f"Challenge Required: {_word(account.get('challengeRequired'))}")
    if label := account.get("challengeLabel"):
        click.echo(f"Challenge Label: {label}")
    click.echo()
    for title, lines in (*_grants(account, bucket, until), *_challenge(account, bucket)):
        click.echo(f"# {title}")
        for line in lines:
            click.echo(line)


def _grants(account: Mapping[str, Any], bucket: str, until: str) -> list[tuple[str, list[str]]]:
    """The three principals: who checks, who reads under leases, and whom the bucket is for."""
    from sublet.grants import grant_command
    from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER, VERIFIER_PERMISSIONS

    permissions = f"--permissions={','.join(VERIFIER_PERMISSIONS)}"
    verifier = account["controlPlaneServiceAccount"]
    return [
        (
            "Control plane: reads the bucket's policy, never an object",
            [
                f"gcloud iam roles create {_ROLE} --project=YOUR_PROJECT {permissions}",
                grant_command(
                    bucket, verifier, f"projects/YOUR_PROJECT/roles/{_ROLE}", until=until
                ),
            ],
        ),
        (
            "Data accounts: read objects and write models, only while a lease is alive",
            [
                line
                for email in account["dataServiceAccounts"]
                for line in (
                    grant_command(bucket, email, OBJECT_VIEWER, until=until),
                    grant_command(bucket, email, OBJECT_CREATOR, folder="models/", until=until),
                )
            ],
        ),
        (
            "Your account: says that this bucket is for this tenant",
            [grant_command(bucket, account["email"], OBJECT_VIEWER, until=until)],
        ),
    ]


def _challenge(account: Mapping[str, Any], bucket: str) -> list[tuple[str, list[str]]]:
    """A label is of one bucket, so there is none to show until that is named."""
    if not account.get("challengeRequired"):
        return []
    from sublet.grants import label_command

    label = account.get("challengeLabel")
    command = label_command(bucket, label) if label else "sublet get account --bucket YOUR_BUCKET"
    return [("Challenge: shows that you may change the bucket", [command])]


def _word(value: object) -> str:
    return str(bool(value)).lower()
