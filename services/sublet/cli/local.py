"""`sublet local`: the whole of it on this machine."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import psutil

from sublet.cli.durations import Duration
from sublet.cli.faults import clock, fault
from sublet.cli.logs import logs
from sublet.cli.output import show
from sublet.cli.stack_control import ask_stack, data_dir_option, output_option
from sublet.cli.sweep import sweep
from sublet.errors import AlreadyExists
from sublet.local import state_file
from sublet.local.parts import PARTS

F = TypeVar("F", bound=Callable[..., Any])

_START_WITHIN_S: Final = 120
_STOP_WITHIN_S: Final = 30
_POLL_S: Final = 0.05
_NOT_ENFORCED: Final = (
    "a process of this machine can ask any metadata server and read the data directory",
    "clients that PUBSUB_EMULATOR_HOST points here send no token, and so count as anonymous",
    "VPC Service Controls, deny policies, organisation policies, quotas",
)


@click.group()
def local() -> None:
    """A whole sublet on this machine, with a Google Cloud that enforces IAM."""


for _command in (clock, fault, logs, sweep):
    local.add_command(_command)


def _default_models_dir() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "sublet" / "models"


def _parse_ports(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, int]:
    del ctx, parameter
    ports = {}
    for value in values:
        part, _, port = value.partition("=")
        if not port.isdigit():
            raise click.BadParameter(f"got {value!r}; expected PART=PORT, such as storage=4443")
        ports[part] = int(port)
    return ports


def _parse_parts(ctx: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    del ctx, parameter
    if not value:
        return []
    parts = [part.strip() for part in value.split(",")]
    if unknown := set(parts) - set(PARTS):
        expected = ", ".join(PARTS)
        raise click.BadParameter(f"got {', '.join(sorted(unknown))}; expected some of {expected}")
    return parts


def _durations(command: F) -> F:
    """The durations that bound access, as deploy units read them; in seconds."""
    for name, help_text in (
        ("--token-ttl", "Life of a trainer's token.  [default: 300]"),
        ("--verification-token-ttl", "Life of a registration's token.  [default: 60]"),
        ("--heartbeat-every", "How often a trainer reports.  [default: 10]"),
        ("--holder-is-lost-after", "Silence after which a holder is replaced.  [default: 60]"),
        ("--clock-skew", "Margin between our clock and Google's.  [default: 10]"),
        ("--checkpoint-every", "How often a trainer keeps its state.  [default: 600]"),
    ):
        command = click.option(name, type=float, metavar="SECONDS", help=help_text)(command)
    return command


@local.command()
@data_dir_option
@click.option("--detach", is_flag=True, help="Leave it running in the background.")
@click.option(
    "--anonymous",
    type=click.Choice(["owner", "deny"]),
    default="owner",
    show_default=True,
    help="What calls without a token are.",
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    callback=_parse_ports,
    metavar="PART=PORT",
    help="A port for a part (storage, pubsub, run, iam, control-plane, ...); free ones otherwise.",
)
@click.option(
    "--iam-delay",
    type=Duration(),
    default=timedelta(0),
    help="How long after a change of policy the one before it still decides.  [default: 0s]",
)
@click.option(
    "--only",
    default="",
    callback=_parse_parts,
    metavar="PARTS",
    help="These parts of the cloud, and nothing of sublet: storage,pubsub,run,iam.",
)
@click.option(
    "--models-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=_default_models_dir,
    show_default="the user's cache directory",
    help="Where base models lie.",
)
@click.option(
    "--pubsub",
    type=click.Choice(["sublet", "google"]),
    help="Whose Pub/Sub: sublet's own, or Google's emulator, from the gcloud SDK or where "
    "PUBSUB_EMULATOR_HOST says.  [default: sublet, unless PUBSUB_EMULATOR_HOST is set]",
)
@click.option(
    "--registry",
    type=click.Choice(["sqlite", "firestore"]),
    default="sqlite",
    show_default=True,
    help="Where records are: a file, or Google's Firestore emulator from the gcloud SDK.",
)
@click.option("--sweep-every", type=float, default=60.0, show_default=True, metavar="SECONDS")
@_durations
def up(
    data_dir: Path,
    anonymous: str,
    ports: dict[str, int],
    models_dir: Path,
    sweep_every: float,
    iam_delay: timedelta,
    only: list[str],
    pubsub: str | None,
    registry: str,
    *,
    detach: bool,
    **durations: float | None,
) -> None:
    """Start the stack and run it until Ctrl-C."""
    _verify_offered(only, pubsub, registry)
    chosen_pubsub = "sublet" if only else _chosen_pubsub(pubsub, data_dir)
    if detach:
        _up_detached(data_dir)
        return
    if only:
        is_owner = anonymous == "owner"
        _run_parts(data_dir, only, anonymous_is_owner=is_owner, ports=ports, iam_delay=iam_delay)
        return
    from sublet.local.running import run_until_told
    from sublet.local.stack import RunningStack, Settings

    started = time.monotonic()
    _prepare_base_models(models_dir)
    terms = {f"SUBLET_{k.upper()}_S": f"{v:g}" for k, v in durations.items() if v is not None}
    settings = Settings(
        directory=data_dir,
        models=models_dir,
        anonymous_is_owner=anonymous == "owner",
        sweep_every=timedelta(seconds=sweep_every),
        iam_delay=iam_delay,
        ports=ports,
        terms=terms,
        pubsub=chosen_pubsub,
        registry=registry,
    )

    def ready(stack: state_file.Stack) -> None:
        click.echo(
            f"sublet is up after {time.monotonic() - started:.1f} s; its state is in {data_dir}"
        )
        for name, value in stack.variables.items():
            click.echo(f"  {name}={_masked(name, value)}")
        if settings.anonymous_is_owner:
            click.echo(
                "Calls without a token act as the local owner (--anonymous deny refuses them)."
            )
        click.echo(
            "Tokens, policies, conditions, boundaries and expiry are enforced. Not enforced:"
        )
        for gap in _NOT_ENFORCED:
            click.echo(f"  - {gap}")
        click.echo(f'In another terminal: eval "$(sublet local env --data-dir {data_dir})"')

    def make() -> RunningStack:
        return RunningStack(settings, lambda line: click.echo(line, err=True))

    asyncio.run(run_until_told(data_dir, make, ready))
    click.echo("sublet is down.")


def _chosen_pubsub(asked_for: str | None, data_dir: Path) -> str:
    if not (asked_for or os.environ.get("PUBSUB_EMULATOR_HOST")):
        return "sublet"
    from sublet.local.pubsub.external.choice import choose_pubsub

    return choose_pubsub(asked_for, os.environ, data_dir)


def _verify_offered(only: list[str], pubsub: str | None, registry: str) -> None:
    """
    Raises:
        FailedPrecondition: the Firestore emulator is not installed.
    """
    if only and pubsub == "google":
        raise click.UsageError("--pubsub google is for the whole stack; --only has sublet's own")
    if only and registry == "firestore":
        raise click.UsageError("--registry is for the whole stack; --only keeps no records")
    if registry == "firestore":
        from sublet.local.firestore import GOOGLE_FIRESTORE

        GOOGLE_FIRESTORE.find()


def _run_parts(
    data_dir: Path,
    parts: list[str],
    *,
    anonymous_is_owner: bool,
    ports: dict[str, int],
    iam_delay: timedelta,
) -> None:
    """The local cloud without sublet."""
    from sublet.local.cloud_alone import CloudAlone
    from sublet.local.running import run_until_told

    def make() -> CloudAlone:
        return CloudAlone(
            data_dir,
            parts,
            anonymous_is_owner=anonymous_is_owner,
            ports=ports,
            iam_delay=iam_delay,
        )

    def ready(stack: state_file.Stack) -> None:
        click.echo(f"{', '.join(parts)}: up; the state is in {data_dir}")
        for name, value in stack.variables.items():
            click.echo(f"  {name}={value}")

    asyncio.run(run_until_told(data_dir, make, ready))


@local.command()
@data_dir_option
def down(data_dir: Path) -> None:
    """Stop the stack that runs on a data directory."""
    stack = state_file.require(data_dir)
    process = psutil.Process(stack.pid)
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(_STOP_WITHIN_S)
    click.echo("sublet is down.")


@local.command()
@data_dir_option
def env(data_dir: Path) -> None:
    """Print what a client needs, as lines for `eval`."""
    for name, value in state_file.require(data_dir).variables.items():
        click.echo(f"export {name}={value}")


@local.command()
@data_dir_option
@output_option
def status(data_dir: Path, output: str) -> None:
    """Show each part: where it answers, as whom it runs, what it takes."""
    show(ask_stack(data_dir, "GET", "/status"), output)


@local.group()
def iam() -> None:
    """What the running stack's IAM decided."""


@iam.command("trace")
@click.option("--last", type=click.IntRange(1), default=10, show_default=True)
@data_dir_option
@output_option
def trace(last: int, data_dir: Path, output: str) -> None:
    """Explain the last denials: who asked for what, and which binding came near."""
    denials = ask_stack(data_dir, "GET", "/denials")["denials"][-last:]
    if output == "json":
        show({"denials": denials}, output)
        return
    for denial in denials:
        click.echo(f"{denial['time']}  {denial['explanation']}")


@local.command("create-account")
@click.argument("account")
@click.option(
    "--always-on",
    is_flag=True,
    help="Never disable its data accounts: leases start at once, and end with their tokens' age.",
)
@click.option(
    "--challenge",
    is_flag=True,
    help="Ask for a label on each of its buckets, which only a bucket's owner can put there.",
)
@data_dir_option
@output_option
def create_account(
    account: str, always_on: bool, challenge: bool, data_dir: Path, output: str
) -> None:
    """Make an account, and show its API key this once."""
    asked = {"account": account, "alwaysOn": always_on, "challenge": challenge}
    show(ask_stack(data_dir, "POST", "/accounts", asked), output)


@local.command("create-service-account")
@click.argument("name")
@data_dir_option
@output_option
def create_service_account(name: str, data_dir: Path, output: str) -> None:
    """Make an identity, and show the variables of a process that has it."""
    show(ask_stack(data_dir, "POST", "/service-accounts", {"name": name}), output)


@local.command("create-bucket")
@click.argument("name")
@click.option("-a", "--account-id", envvar="SUBLET_ACCOUNT_ID", default="acme", show_default=True)
@data_dir_option
@output_option
def create_bucket(name: str, account_id: str, data_dir: Path, output: str) -> None:
    """Make a bucket with the grants and the notification that a customer would make."""
    path = f"/accounts/{account_id}/buckets"
    show(ask_stack(data_dir, "POST", path, {"bucket": name}), output)


def _prepare_base_models(models_dir: Path) -> None:
    """
    The catalogue's base models, made once; the trainer's package makes them, since it knows how.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "sublet_trainer.catalogue.base_models",
        "--into",
        str(models_dir),
    ]
    made = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if made.returncode:
        raise click.ClickException("the base models could not be prepared; see above")


def _up_detached(data_dir: Path) -> None:
    """Start the same command without --detach in a session of its own, and wait until it is up."""
    if running := state_file.find(data_dir):
        raise AlreadyExists(
            f"a stack, process {running.pid}, runs on {data_dir} already; "
            f"stop it: sublet local down --data-dir {data_dir}"
        )
    logs = data_dir / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    with (logs / "stack.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sublet.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_WITHIN_S
    while (stack := state_file.find(data_dir)) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise click.ClickException(f"the stack did not start; see {logs / 'stack.log'}")
        time.sleep(_POLL_S)
    click.echo(
        f"sublet is up, process {stack.pid}; stop it: sublet local down --data-dir {data_dir}"
    )


def _masked(name: str, value: str) -> str:
    """A key is not for a screen that somebody may share; `env` prints it."""
    return value[:10] + "..." if name.endswith("KEY") else value
