"""
Become another program, one that dies when its parent does: `lifeline.py PARENT LISTENER PROGRAM
...`.

A local cloud that is killed outright must leave no process behind. On Linux the kernel sees to it;
on other systems the next start on the same data directory ends what it finds. LISTENER is the
descriptor of a listening socket to hand on as systemd does (descriptor 3, LISTEN_FDS, LISTEN_PID),
or -1. Imports nothing of sublet: it runs before every part, so it must cost nothing.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_FIRST_PASSED_DESCRIPTOR = 3

parent, listener, *program = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(parent):
    sys.exit("the parent died before its child began")
if int(listener) >= 0:
    os.dup2(int(listener), _FIRST_PASSED_DESCRIPTOR)
    os.set_inheritable(_FIRST_PASSED_DESCRIPTOR, True)  # noqa: FBT003
    os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execvp(program[0], program)  # noqa: S606
