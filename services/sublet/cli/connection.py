"""
Which control plane a command talks to: options, then the environment, then the stack of ./.sublet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from sublet.client.http import ApiClient

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_DATA_DIR: Final = Path(".sublet")


def api_options(command: F) -> F:
    """The options of every command that talks to the control plane."""
    for option in (
        click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text"),
        click.option("-a", "--account-id", envvar="SUBLET_ACCOUNT_ID", help="The account."),
        click.option("--api-key", envvar="SUBLET_API_KEY", help="The key that speaks for it."),
        click.option("--base-url", envvar="SUBLET_BASE_URL", help="The control plane."),
    ):
        command = option(command)
    return command


def connect(base_url: str | None, api_key: str | None, account_id: str | None) -> ApiClient:
    """
    Raises:
        click.UsageError: something is not given, and no local stack runs to take it from.
    """
    if not (base_url and api_key):
        from sublet.local import state_file

        stack = state_file.find(DEFAULT_DATA_DIR)
        if stack is None:
            raise click.UsageError(
                "set SUBLET_BASE_URL, SUBLET_API_KEY and SUBLET_ACCOUNT_ID "
                '(for a local stack: eval "$(sublet local env)"), or give --base-url and --api-key'
            )
        base_url = base_url or stack.variables["SUBLET_BASE_URL"]
        api_key = api_key or stack.variables["SUBLET_API_KEY"]
        account_id = account_id or stack.variables["SUBLET_ACCOUNT_ID"]
    if not account_id:
        raise click.UsageError("set SUBLET_ACCOUNT_ID, or give --account-id")
    return ApiClient(base_url, api_key, account_id)
