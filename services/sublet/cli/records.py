"""What is the same for every kind of resource: get, list, delete."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from sublet.cli.connection import Session, talks_to_api
from sublet.cli.durations import Duration
from sublet.cli.words import command

F = TypeVar("F", bound=Callable[..., Any])

_GONE_EVERY_S: Final = 0.5

wait_timeout_option = click.option(
    "--wait-timeout",
    type=Duration(),
    default=timedelta(minutes=30),
    show_default="30m",
    help="How long to wait.",
)
quiet_option = click.option("--quiet", is_flag=True, help="Print the name and nothing else.")


def page_options(function: F) -> F:
    for option in (
        click.option("--no-paginate", is_flag=True, help="One page, and the token of the next."),
        click.option("--page-token", default="", help="Begin where an earlier page ended."),
        click.option("--page-size", type=click.IntRange(1, 200), help="Of one request."),
        click.option("--order-by", default="", help="name or createTime; or with desc after it."),
        click.option("--filter", "filter_", default="", help='FIELD="VALUE", joined by AND.'),
    ):
        function = option(function)
    return function


def add_get(noun: str, collection: str) -> None:
    @command("get", noun, help=f"Show one {noun}, by id or full name.")
    @click.argument("name")
    @talks_to_api
    def get(session: Session, *, name: str) -> None:
        session.show(session.api.get(collection, name))


def add_list(noun: str, collection: str) -> None:
    @command("list", noun, help=f"Show every {noun}, newest first.")
    @page_options
    @talks_to_api
    def list_(session: Session, **asked: Any) -> None:  # noqa: ANN401  an option each
        list_all(session, collection, **asked)


def add_delete(noun: str, collection: str, help_text: str) -> None:
    @command("delete", noun, help=help_text)
    @click.argument("name")
    @click.option("--wait", is_flag=True, help="Until nothing is there any more.")
    @wait_timeout_option
    @talks_to_api
    def delete(session: Session, *, name: str, wait: bool, wait_timeout: timedelta) -> None:
        session.api.delete(collection, name)
        if wait:
            _wait_until_gone(session, collection, name, wait_timeout)


def list_all(
    session: Session,
    collection: str,
    more: Mapping[str, str] | None = None,
    *,
    filter_: str,
    order_by: str,
    page_size: int | None,
    page_token: str,
    no_paginate: bool,
) -> None:
    asked = {
        "filter": filter_,
        "orderBy": order_by,
        "pageSize": str(page_size or ""),
        "pageToken": page_token,
        **(more or {}),
    }
    query = {name: value for name, value in asked.items() if value}
    if not no_paginate:
        session.show_all(session.api.list(collection, **query))
        return
    page = session.api.list_page(collection, **query)
    if session.is_json:
        session.show(page)
        return
    session.show_all(page[collection.rpartition("/")[2]])
    if token := page.get("nextPageToken"):
        click.echo(f"Next Page Token: {token}", err=True)


def show_made(session: Session, resource: dict[str, Any], *, quiet: bool) -> None:
    if quiet:
        click.echo(resource["name"])
    else:
        session.show(resource)


def without_unset(**fields: Any) -> dict[str, Any]:  # noqa: ANN401  JSON is any
    """What the caller gave, and nothing else: defaults are the control plane's."""
    return {name: value for name, value in fields.items() if value is not None}


def _wait_until_gone(session: Session, collection: str, name: str, timeout: timedelta) -> None:
    import time

    from sublet.client.errors import WaitTimedOut

    give_up_at = time.monotonic() + timeout.total_seconds()
    while session.api.find(collection, name) is not None:
        if time.monotonic() >= give_up_at:
            raise WaitTimedOut(f"{name} is still there after {timeout.total_seconds():g} s")
        session.api.retries.sleep(_GONE_EVERY_S)
