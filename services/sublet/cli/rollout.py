"""`sublet rollout`: groups of answers with their rewards, made in one's own environment."""

import json
import subprocess
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from sublet.cli.output import show
from sublet.cli.stack_control import output_option
from sublet.errors import FailedPrecondition


@click.command()
@click.option(
    "--base-model",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="The folder of the model that is sampled from.",
)
@click.option("--adapter", metavar="DIR|gs://.../", help="With it.  [default: the base model]")
@click.option(
    "--prompts",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help='JSON lines: {"messages": [...]}, and whatever the reward function needs.',
)
@click.option(
    "--reward", required=True, metavar="MODULE:FUNCTION", help="Of yours, from this directory."
)
@click.option("--to", required=True, metavar="gs://BUCKET/OBJECT|FILE", help="A new file.")
@click.option("--samples", type=click.IntRange(2), default=8, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(1), default=256, show_default=True)
@click.option("--temperature", type=click.FloatRange(0, min_open=True), default=1.0)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@output_option
def rollout(*, adapter: str | None, to: str, output: str, **options: Any) -> None:  # noqa: ANN401  an option each
    """
    Sample answers, score them, and write the rows for a reinforcement job.

    For each prompt, a group of answers is drawn from the base model with the adapter, your function
    scores each (it is called as reward(prompt, answer) and returns a number, or numbers by name),
    and the rows go to your bucket with your own credentials. Nothing of it passes the control
    plane: not the prompts, not the answers, not the function, not the rewards.
    """
    if find_spec("torch") is None or find_spec("sublet_trainer") is None:
        raise FailedPrecondition(
            "sampling needs the trainer on this machine: pip install 'sublet[trainer]'"
        )
    with ExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory(prefix="sublet-rollout-")))
        if adapter:
            options["adapter"] = _at_hand(adapter, folder / "adapter")
        rows = folder / "rows.jsonl" if to.startswith("gs://") else Path(to)
        words = [str(word) for name, value in options.items() for word in (_flag(name), value)]
        command = [sys.executable, "-m", "sublet_trainer.rollout", *words, "--out", str(rows)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise click.exceptions.Exit(done.returncode)
        if to.startswith("gs://"):
            _own_bucket().put(to, rows)
    show(
        {**json.loads(done.stdout), "externalUrl" if to.startswith("gs://") else "file": to}, output
    )


def _flag(name: str) -> str:
    return {"base_model": "--base"}.get(name, f"--{name.replace('_', '-')}")


def _at_hand(adapter: str, folder: Path) -> Path:
    if not adapter.startswith("gs://"):
        return Path(adapter)
    folder.mkdir()
    _own_bucket().fetch_folder(adapter, folder)
    return folder


def _own_bucket() -> Any:  # noqa: ANN401  an OwnBucket, whose library may not be there
    try:
        from sublet.gcp.own_bucket import OwnBucket
    except ImportError:
        raise FailedPrecondition(
            "buckets need Google's library: pip install 'sublet[gcp]'"
        ) from None
    return OwnBucket()
