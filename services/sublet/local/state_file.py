"""
The state file of a running stack: where its parts are and how to reach them. `env`, `status` and
`down` read it; it is readable by its owner alone, since it holds the keys.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from sublet.errors import NotFound

_NAME: Final = "stack.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """
    `variables` are what a client needs in its environment; `pid` and `started_at` name the process.
    """

    pid: int
    started_at: float
    control_url: str
    control_secret: str
    variables: dict[str, str]

    @property
    def is_running(self) -> bool:
        """True if that process, and not a later one of the same number, is alive."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started_at) < 1
        except psutil.NoSuchProcess:
            return False


def of_this_process(*, control_url: str, control_secret: str, variables: dict[str, str]) -> Stack:
    return Stack(
        pid=os.getpid(),
        started_at=psutil.Process().create_time(),
        control_url=control_url,
        control_secret=control_secret,
        variables=variables,
    )


def write(directory: Path, stack: Stack) -> None:
    path = directory / f"{_NAME}.new"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(stack), file, indent=1)
    path.replace(directory / _NAME)


def remove(directory: Path) -> None:
    (directory / _NAME).unlink(missing_ok=True)


def find(directory: Path) -> Stack | None:
    """The stack that runs on a data directory, if one does."""
    path = directory / _NAME
    stack = Stack(**json.loads(path.read_text())) if path.exists() else None
    return stack if stack and stack.is_running else None


def require(directory: Path) -> Stack:
    """
    Raises:
        NotFound: nothing runs there.
    """
    stack = find(directory)
    if stack is None:
        raise NotFound(
            f"no stack runs on {directory}; start one: sublet local up --data-dir {directory}"
        )
    return stack
