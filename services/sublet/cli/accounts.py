"""`account` and `whoami`: for whom a key is, what that needs on a bucket, what it has chosen."""

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.durations import Moment
from sublet.cli.grants import ANY_BUCKET, show_account
from sublet.cli.records import without_unset
from sublet.cli.words import command


@command("get", "account")
@click.argument("account", required=False)
@click.option("--bucket", help="The bucket to name in the commands.")
@click.option("--until", type=Moment(), default="", help="When the grants end by themselves, UTC.")
@talks_to_api
def get(session: Session, *, account: str | None, bucket: str | None, until: str) -> None:
    """Show the account, and what its principals must be granted on a bucket."""
    query = {"bucket": bucket} if bucket else None
    shown = session.api.call("GET", _path(session, account), params=query)
    if session.is_json:
        session.show(shown)
    else:
        show_account(shown, bucket or ANY_BUCKET, until=until)


@command("update", "account")
@click.argument("account", required=False)
@click.option(
    "--always-on/--dark-by-default",
    default=None,
    help="Never disable its data accounts: jobs start at once, and access ends with its tokens' "
    "age. By default they go dark with their last lease, and it ends within seconds, or, after "
    "checks that follow each other, within a minute.",
)
@click.option(
    "--require-challenge",
    is_flag=True,
    help="Ask for a label on each of its buckets, which only a bucket's owner can put there. "
    "Only the operator lifts it.",
)
@talks_to_api
def update(
    session: Session, *, account: str | None, always_on: bool | None, require_challenge: bool
) -> None:
    """Choose how the account's access begins and ends, and what its buckets must show."""
    changes = without_unset(alwaysOn=always_on, challengeRequired=require_challenge or None)
    if not changes:
        raise click.UsageError(
            "nothing to change: give --always-on, --dark-by-default or --require-challenge"
        )
    session.show(session.api.call("PATCH", _path(session, account), json=changes))


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


def _path(session: Session, account: str | None) -> str:
    name = (account or session.api.account_id).removeprefix("accounts/")
    return session.api.path("accounts", f"accounts/{name}")
