"""What a customer grants, as the gcloud lines that do it."""

from collections.abc import Mapping
from typing import Any, Final

import click

_ROLE: Final = "subletVerifier"
_PERMISSIONS: Final = "--permissions=storage.buckets.get,storage.buckets.getIamPolicy"


def show_account(account: Mapping[str, Any], bucket: str) -> None:
    click.echo(f"Name: {account['name']}")
    click.echo(f"Display Name: {account['displayName']}")
    click.echo(f"Email: {account['email']}")
    click.echo(f"State: {account['state']}")
    click.echo(f"Project Numbers: {', '.join(account['projectNumbers'])}")
    click.echo()
    for title, lines in _grants(account, bucket):
        click.echo(f"# {title}")
        for line in lines:
            click.echo(line)


def _grants(account: Mapping[str, Any], bucket: str) -> list[tuple[str, list[str]]]:
    """The three principals: who checks, who reads under leases, and whom the bucket is for."""
    from sublet.grants import grant_command
    from sublet.roles import OBJECT_CREATOR, OBJECT_VIEWER

    verifier = account["controlPlaneServiceAccount"]
    return [
        (
            "Control plane: reads the bucket's policy, never an object",
            [
                f"gcloud iam roles create {_ROLE} --project=YOUR_PROJECT {_PERMISSIONS}",
                grant_command(bucket, verifier, f"projects/YOUR_PROJECT/roles/{_ROLE}"),
            ],
        ),
        (
            "Data accounts: read objects and write models, only while a lease is alive",
            [
                line
                for email in account["dataServiceAccounts"]
                for line in (
                    grant_command(bucket, email, OBJECT_VIEWER),
                    grant_command(bucket, email, OBJECT_CREATOR, folder="models/"),
                )
            ],
        ),
        (
            "Your account: says that this bucket is for this tenant",
            [grant_command(bucket, account["email"], OBJECT_VIEWER)],
        ),
    ]
