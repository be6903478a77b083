"""`model`, `lease` and `audit-log`: to look at."""

from typing import Any

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.records import add_delete, add_get, add_list, list_all, page_options
from sublet.cli.words import command

add_get("model", "models")
add_list("model", "models")
add_delete("model", "models", "Forget a model; its files stay in your bucket.")
add_get("lease", "leases")
add_list("lease", "leases")


@command("download", "model")
@click.argument("name")
@talks_to_api
def download(session: Session, *, name: str) -> None:
    """Show how you copy the files from where they lie: they do not pass through sublet."""
    session.show(session.api.get("models", name, verb=":getDownloadEndpoint"))


@command("list", "audit-log")
@click.option("--start-time", default="", help="RFC 3339.")
@click.option("--end-time", default="", help="RFC 3339.")
@click.option("--email", default="", help="Of this principal alone.")
@page_options
@talks_to_api
def list_audit_logs(
    session: Session,
    *,
    start_time: str,
    end_time: str,
    email: str,
    **asked: Any,  # noqa: ANN401  an option each
) -> None:
    """Show what was done, refused, minted and revoked, newest first."""
    more = {"startTime": start_time, "endTime": end_time, "email": email}
    list_all(session, "auditLogs", more, **asked)
