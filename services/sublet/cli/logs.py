"""`sublet local logs`: what every part says, as it says it."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.text import Text

from sublet.cli.stack_control import data_dir_option

_LOOK_EVERY_S: Final = 0.2
_COLOURS: Final = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan")


class _Tail:
    """What a file has gained since it was last read, in whole lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def new_lines(self) -> list[str]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            read = file.read()
        self._offset += len(read)
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


@click.command()
@click.option("--no-follow", is_flag=True, help="End after what is there.")
@click.option("--part", default="", help="Only logs whose name contains this.")
@data_dir_option
def logs(part: str, data_dir: Path, *, no_follow: bool) -> None:
    """Show the log of every part, each in its colour, until Ctrl-C."""
    console = Console(highlight=False, soft_wrap=True)
    colours: dict[str, str] = {}
    for name, line in _lines(data_dir / "logs", part, follow=not no_follow):
        colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
        console.print(Text(f"{name:28} ", style=colour).append(line, style="default"))


def _lines(directory: Path, part: str, *, follow: bool) -> Iterator[tuple[str, str]]:
    """Every line of every log, with the log's name; also of logs that begin later."""
    tails: dict[Path, _Tail] = {}
    while True:
        for path in sorted(directory.rglob(f"*{part}*.log")):
            tail = tails.setdefault(path, _Tail(path))
            yield from ((path.stem, line) for line in tail.new_lines())
        if not follow:
            return
        time.sleep(_LOOK_EVERY_S)
