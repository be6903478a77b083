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
    A process that has imported what a trainer needs and forks one for each rank of each attempt: as
    killable as any, at a tenth of the seconds of CPU. Attempts follow one another.
    """

    PROGRAM = """
import json, os, sys
import sublet_trainer.processes.follower, sublet_trainer.run
print(json.dumps(sorted(sys.modules)), flush=True)
import torch
from sublet_trainer.__main__ import heed_signals, main
torch.set_num_threads(1)
def rank(environ):
    os.dup2(os.open(environ.pop("LOG", os.devnull), os.O_CREAT | os.O_RDWR | os.O_APPEND), 1)
    os._exit(main(environ, heed_signals()))
for line in sys.stdin:
    environs = json.loads(line)
    if len(environs) > 1:
        import sublet_trainer.models.full, sublet_trainer.processes.group
    pids = [os.fork() or rank(environ) for environ in environs]
    print(json.dumps(pids), flush=True)
    exits = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(exits), flush=True)
"""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", self.PROGRAM]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
        self.modules = frozenset(json.loads(self._process.stdout.readline()))
        """What a trainer has imported when it can begin."""

    def fork(self, *environs: dict[str, str]) -> "ForkedAttempt":
        """An attempt of one rank, or of several."""
        self._process.stdin.write(json.dumps(environs) + "\n")
        self._process.stdin.flush()
        pids = json.loads(self._process.stdout.readline())
        return ForkedAttempt(pids, self._process.stdout.readline)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class ForkedAttempt(NamedTuple):
    pids: list[int]
    exit_codes: Callable[[], str]

    def kill(self, rank: int = 0, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pids[rank], number)

    def terminate(self) -> None:
        """SIGTERM to every rank, as torchrun passes it on."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)

    def wait(self) -> list[int]:
        """Until every rank has ended; their exit codes."""
        return json.loads(self.exit_codes())
