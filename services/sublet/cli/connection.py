"""
Which control plane a command talks to: options, then the environment, then the stack of ./.sublet;
and how its answers are shown.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from sublet.cli.output import show, show_all

if TYPE_CHECKING:
    from sublet.client.http import ApiClient

DEFAULT_DATA_DIR: Final = Path(".sublet")
Json = dict[str, Any]


class NotSent(Exception):
    """Raised in the place of an answer: the request, for whoever asked to see it."""

    def __init__(self, method: str, url: str, body: object) -> None:
        super().__init__(f"{method} {url} was not sent")
        self.request = {"method": method, "url": url, "body": body}


class Session:
    """What one command has to work with: the connection, made when it is first used."""

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        account_id: str | None,
        output: str,
        dry_run: bool,
    ) -> None:
        self._connection = (base_url, api_key, account_id)
        self.output = output
        self.is_dry_run = dry_run
        self._api: ApiClient | None = None

    @property
    def api(self) -> "ApiClient":
        """
        Raises:
            click.UsageError: something is not given, and no local stack runs to take it from.
        """
        if self._api is None:
            self._api = _connected(*self._connection, is_dry_run=self.is_dry_run)
        return self._api

    @property
    def is_json(self) -> bool:
        return self.output == "json"

    def show(self, resource: Mapping[str, Any]) -> None:
        show(resource, self.output)

    def show_request(self, request: Mapping[str, Any]) -> None:
        if self.is_json:
            self.show(request)
            return
        click.echo(f"{request['method']} {request['url']}")
        if request["body"] is not None:
            click.echo(json.dumps(request["body"], indent=2))

    def show_all(self, resources: Iterable[Mapping[str, Any]]) -> None:
        show_all(resources, self.output)

    def close(self) -> None:
        if self._api:
            self._api.close()


def talks_to_api(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its connection's options, and a Session as its first argument."""

    def run(
        *,
        base_url: str | None,
        api_key: str | None,
        account_id: str | None,
        output: str,
        dry_run: bool,
        **arguments: object,
    ) -> None:
        session = Session(
            base_url=base_url,
            api_key=api_key,
            account_id=account_id,
            output=output,
            dry_run=dry_run,
        )
        try:
            function(session, **arguments)
        except NotSent as instead:
            session.show_request(instead.request)
        finally:
            session.close()

    update_wrapper(run, function)
    command: Callable[..., None] = run
    for option in (
        click.option("--dry-run", is_flag=True, help="Print the request instead of sending it."),
        click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text"),
        click.option("--base-url", envvar="SUBLET_BASE_URL", help="The control plane."),
        click.option("--api-key", envvar="SUBLET_API_KEY", help="The key that speaks for you."),
        click.option(
            "-a",
            "--account-id",
            envvar="SUBLET_ACCOUNT_ID",
            help="The account.  [default: the key's own]",
        ),
    ):
        command = option(command)
    return command


def _connected(
    base_url: str | None, api_key: str | None, account_id: str | None, *, is_dry_run: bool
) -> "ApiClient":
    from sublet.client.http import ApiClient
    from sublet.client.retries import Retries

    if not (base_url and api_key):
        stack = _stack_variables()
        if not base_url and not account_id:
            account_id = stack["SUBLET_ACCOUNT_ID"]
        base_url = base_url or stack["SUBLET_BASE_URL"]
        api_key = api_key or stack["SUBLET_API_KEY"]
    if not is_dry_run:
        return ApiClient(base_url, api_key, account_id or "", retries=Retries(notice=_told_once()))
    if not account_id:
        raise click.UsageError("--dry-run asks nobody which account the key is of: give -a ACCOUNT")
    from sublet.cli.dry_run import PrintsRequests

    return ApiClient(base_url, api_key, account_id, transport=PrintsRequests())


def _told_once() -> Callable[[Exception, float], None]:
    """Says on standard error why a command waits; the same reason is said once."""
    told = set[str]()

    def tell(failure: Exception, pause_s: float) -> None:
        del pause_s
        if (reason := str(failure)) not in told:
            told.add(reason)
            click.echo(f"Trying again: {reason}", err=True)

    return tell


def _stack_variables() -> Mapping[str, str]:
    from sublet.local import state_file

    stack = state_file.find(DEFAULT_DATA_DIR)
    if stack is None:
        raise click.UsageError(
            "no control plane is given: set SUBLET_BASE_URL and SUBLET_API_KEY, or give --base-url "
            "and --api-key; for a stack on this machine: sublet local up --detach"
        )
    return stack.variables


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `talks_to_api` for a command that connects by itself."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text"),
        click.option("-a", "--account-id", envvar="SUBLET_ACCOUNT_ID", help="The account."),
        click.option("--api-key", envvar="SUBLET_API_KEY", help="The key that speaks for it."),
        click.option("--base-url", envvar="SUBLET_BASE_URL", help="The control plane."),
    ):
        command = option(command)
    return command


def connect(base_url: str | None, api_key: str | None, account_id: str | None) -> "ApiClient":
    """
    Raises:
        click.UsageError: something is not given, and no local stack runs to take it from.
    """
    return _connected(base_url, api_key, account_id, is_dry_run=False)
