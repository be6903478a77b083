"""`sublet local sweep`: what the stack's scheduler does each minute, now and with its report."""

from pathlib import Path

import click

from sublet.cli.output import show
from sublet.cli.stack_control import ask_stack, data_dir_option, output_option


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be mended and why, and mend nothing.")
@data_dir_option
@output_option
def sweep(*, dry_run: bool, data_dir: Path, output: str) -> None:
    """Mend what events missed, and count it by kind."""
    show(ask_stack(data_dir, "POST", "/sweep", {"dryRun": dry_run}), output)
