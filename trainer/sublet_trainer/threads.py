"""How torch's threads on a CPU wait for each other; to be said before torch is imported."""

import os
from typing import Final

_SPINS: Final = "2000"
"""
Turns of a loop, microseconds in all, before a waiting thread sleeps. Measured on two cores, in
tokens a second alone and beside one busy process: 375 and 95 with libgomp's own number, which spins
on where another wants the core; 355 and 164 with this; 273 and 199 with threads that sleep at once.

Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""


def wait_briefly() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
