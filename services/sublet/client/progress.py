"""
A job's progress for whoever waits: on a terminal a bar with the loss under it, elsewhere a line
each time that something changed. On standard error, since standard output is for results.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from sublet.client.jobs import Job

Show = Callable[[Job], None]

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_WIDTH: Final = 40


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[Show]:
    console = console or Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Lines(console).show
        return
    with _bar(console) as show:
        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""

    def show(self, job: Job) -> None:
        if (line := in_words(job)) != self._last:
            self._console.print(line, soft_wrap=True, markup=False)
            self._last = line


@contextmanager
def _bar(console: Console) -> Iterator[Show]:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(_WIDTH),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    task = bar.add_task("", total=100)
    losses = Losses()

    with Live(bar, console=console, refresh_per_second=4) as live:

        def show(job: Job) -> None:
            percent = 100 if job.is_completed else job.job_progress.percent
            bar.update(task, description=in_words(job, with_loss=False), completed=percent)
            losses.add(job)
            live.update(Group(bar, Text(losses.line())) if losses.line() else bar)

        yield show


def in_words(job: Job, *, with_loss: bool = True) -> str:
    words = [job.id, job.state]
    if job.num_steps:
        words.append(f"step {job.step}/{job.num_steps}")
    if with_loss and job.loss is not None:
        words.append(f"loss {job.loss:.4f}")
    if job.eval_loss is not None:
        words.append(f"evaluation {job.eval_loss:.4f}")
    if job.status.code == "OK" and job.status.message:
        words.append(job.status.message)
    return "  ".join(words)


class Losses:
    """The loss of each step that was seen, as a line of blocks and the newest one in digits."""

    def __init__(self) -> None:
        self._by_step: dict[int, float] = {}

    def add(self, job: Job) -> None:
        if job.loss is not None:
            self._by_step[job.step] = job.loss

    def line(self) -> str:
        if not self._by_step:
            return ""
        losses = [self._by_step[step] for step in sorted(self._by_step)]
        shown = losses[-_WIDTH:]
        least, most = min(shown), max(shown)
        scale = (len(_BLOCKS) - 1) / (most - least) if most > least else 0.0
        blocks = "".join(_BLOCKS[round((loss - least) * scale)] for loss in shown)
        return f"loss {blocks} {losses[-1]:.4f}"
