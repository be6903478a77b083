"""`sublet local fault` and `sublet local clock`: what a local cloud can be made to go through."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import click

from sublet.cli.durations import Duration
from sublet.cli.output import show
from sublet.cli.stack_control import ask_stack, data_dir_option, output_option
from sublet.local.faults import DEFAULT_DELAY, MEANINGS, Fault

_FAULT: Final = click.Choice([fault.value for fault in Fault])


@click.group()
def fault() -> None:
    """Make the running stack go wrong, in one of the ways that clouds do."""


@fault.command("add")
@click.argument("name", type=_FAULT, metavar="FAULT")
@click.option("--on", default="", help="Only where this is part of what it would strike.")
@click.option("--times", type=click.IntRange(1), help="So often in all.  [default: once]")
@click.option("--rate", type=float, help="With this probability, on and on, until cleared.")
@click.option(
    "--delay", type=Duration(), default=DEFAULT_DELAY, help="How long the slow ones wait."
)
@data_dir_option
@output_option
def add(
    name: str,
    on: str,
    times: int | None,
    rate: float | None,
    delay: timedelta,
    data_dir: Path,
    output: str,
) -> None:
    order = {
        "fault": name,
        "on": on,
        "rate": 1.0 if rate is None else rate,
        "times": 1 if rate is None and times is None else times,
        "seconds": delay.total_seconds(),
    }
    show(ask_stack(data_dir, "POST", "/faults", order), output)


add.help = "Order a fault, by name:\n\n\b\n" + "\n".join(
    f"{name:19}{meaning}" for name, meaning in MEANINGS.items()
)


@fault.command("list")
@data_dir_option
@output_option
def list_(data_dir: Path, output: str) -> None:
    """Show the faults in force, and how often each has struck."""
    show(ask_stack(data_dir, "GET", "/faults"), output)


@fault.command("clear")
@click.argument("name", type=_FAULT, required=False, metavar="[FAULT]")
@data_dir_option
@output_option
def clear(name: str | None, data_dir: Path, output: str) -> None:
    """Take back the orders for one fault, or all of them."""
    query = f"?fault={name}" if name else ""
    show(ask_stack(data_dir, "DELETE", f"/faults{query}"), output)


@click.group()
def clock() -> None:
    """The time of every part of the running stack."""


@clock.command("advance")
@click.argument("by", type=Duration())
@data_dir_option
@output_option
def advance(by: timedelta, data_dir: Path, output: str) -> None:
    """Move it forward: tokens, leases, deadlines and retention go by."""
    show(ask_stack(data_dir, "POST", "/clock", {"seconds": by.total_seconds()}), output)
