"""Asking a stack that runs: with the address and the secret of its state file."""

from pathlib import Path
from typing import Any

import click
import httpx

from sublet.cli.connection import DEFAULT_DATA_DIR
from sublet.local import state_file

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where its state lies.",
)
output_option = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")


def ask_stack(
    data_dir: Path, method: str, path: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """
    Raises:
        NotFound: nothing runs on that directory.
        ClickException: the stack refused; its own words.
    """
    stack = state_file.require(data_dir)
    with httpx.Client(
        base_url=stack.control_url,
        trust_env=False,
        timeout=30,
        verify=stack.control_url.startswith("https"),  # no certificates to read on loopback
    ) as client:
        headers = {"Authorization": f"Bearer {stack.control_secret}"}
        response = client.request(method, path, json=body, headers=headers)
    answer: dict[str, Any] = response.json()
    if not response.is_success:
        raise click.ClickException(answer["error"]["message"])
    return answer
