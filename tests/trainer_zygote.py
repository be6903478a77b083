"""Real processes for attempts that are to be killed, cheaply."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from trainer_world import ROOT


class Zygote:
    """
    A process that has imported what a trainer needs and forks one for each attempt: as killable as
    any, at a tenth of the seconds of CPU. Attempts follow one another.
    """

    PROGRAM = """
import json, os, sys
import sublet_trainer.run
from sublet_trainer.__main__ import main
from sublet_trainer.stops import Interruption
print(json.dumps(sorted(sys.modules)), flush=True)
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os._exit(main(json.loads(line), Interruption()))
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", self.PROGRAM]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.modules = frozenset(json.loads(self._process.stdout.readline()))
        """What a trainer has imported when it can begin."""

    def fork(self, environ: dict[str, str]) -> "ForkedAttempt":
        self._process.stdin.write(json.dumps(environ) + "\n")
        self._process.stdin.flush()
        return ForkedAttempt(int(self._process.stdout.readline()), self._process.stdout.readline)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class ForkedAttempt(NamedTuple):
    pid: int
    exit_code: Callable[[], str]

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return int(self.exit_code())
