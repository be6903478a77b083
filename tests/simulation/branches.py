"""
Which of the use cases' recoveries a corpus has run: every `except` of theirs is one, and one that
no seed ever comes to is code that nobody has tried.
"""

import ast
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from simulation.scheduler import Scheduler

USE_CASES = (
    *("auditing", "data_accounts", "delivery", "dispatch", "holding", "lending", "looks"),
    *("minting", "outbox", "quarantine", "reclaiming", "registration", "repairs", "revocation"),
    *("sweep", "training_runs", "verification"),
)


def recoveries() -> dict[tuple[str, int], str]:
    """Each handler by file and line of its first statement, as a reader would name it."""
    found = {}
    for name in USE_CASES:
        path = importlib.import_module(f"sublet.{name}").__file__
        assert path is not None
        for function in ast.walk(ast.parse(Path(path).read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler):
                    caught = ast.unparse(node.type) if node.type else "everything"
                    place = (path, node.body[0].lineno)
                    found[place] = f"{name}.{function.name}: except {caught}"
    return found


@contextmanager
def watched(wanted: dict[tuple[str, int], str], seen: set[str]) -> Iterator[None]:
    """Add to `seen` what processes of the simulation run of `wanted`, while inside."""
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for (path, line), what in wanted.items():
        function = what.partition(":")[0].rpartition(".")[2]
        lines.setdefault((path, function), {})[line] = what

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        of_function = lines.get((frame.f_code.co_filename, frame.f_code.co_name))
        if of_function is None:
            return None

        def step(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_lineno in of_function:
                seen.add(of_function[frame.f_lineno])
            return step

        return step

    spawn = Scheduler.spawn

    def traced(self: Scheduler, name: str, body: Any, done: Any = None) -> Any:
        def run() -> Any:
            sys.settrace(enter)
            return body()

        return spawn(self, name, run, done)

    Scheduler.spawn = traced
    try:
        yield
    finally:
        Scheduler.spawn = spawn
        sys.settrace(None)
