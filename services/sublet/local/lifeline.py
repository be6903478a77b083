"""
Become another program, one that dies when its parent does: `lifeline.py PARENT PROGRAM ...`.

A local cloud that is killed outright must leave no process behind. On Linux the kernel sees to it;
on other systems the next start on the same data directory ends what it finds. Imports nothing of
sublet: it runs before every part, so it must cost nothing.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

parent, *program = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent died before its child began")
os.execvp(program[0], program)  # noqa: S606
