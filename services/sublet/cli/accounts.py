"""`account` and `whoami`: for which account a key is, and what that needs on a bucket."""

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.grants import show_account
from sublet.cli.words import command


@command("get", "account")
@click.argument("account", required=False)
@click.option("--bucket", default="YOUR_BUCKET", help="The bucket to name in the commands.")
@talks_to_api
def get(session: Session, *, account: str | None, bucket: str) -> None:
    """Show the account, and what its principals must be granted on a bucket."""
    name = (account or session.api.account_id).removeprefix("accounts/")
    shown = session.api.get("accounts", f"accounts/{name}")
    if session.is_json:
        session.show(shown)
    else:
        show_account(shown, bucket)


@command("list", "account")
@talks_to_api
def list_(session: Session) -> None:
    """Show the accounts that the key may see: its own."""
    session.show_all(session.api.call("GET", "/v1/accounts")["accounts"])


@click.command("whoami")
@talks_to_api
def whoami(session: Session) -> None:
    """Show for whom the API key speaks."""
    session.show(session.api.verify_api_key())
