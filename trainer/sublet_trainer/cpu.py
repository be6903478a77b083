"""
What torch on a CPU does not set by itself, and is set before it is imported: how its threads wait
for each other, and what becomes of freed memory.
"""

import ctypes
import os
from typing import Final

_SPINS: Final = "2000"
"""
Turns of a loop, microseconds in all, before a waiting thread sleeps. Measured on two cores, in
tokens a second alone and beside one busy process: 375 and 95 with libgomp's own number, which spins
on where another wants the core; 355 and 164 with this; 273 and 199 with threads that sleep at once.

Source: https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
"""
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_INT: Final = 2**31 - 1
_KEPT_BYTES: Final = 16 * 2**20
"""Of one piece. What is larger is returned: a file's text and tokens, which grow, would leave gaps
that nothing else fits into."""
_HEAP_BYTES: Final = 64 * 2**20
"""A thread's memory comes in heaps of this size; where so much is to be left over, none is given
back."""


def tune() -> None:
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """
    For the next tensor. glibc returns to the kernel what is as large as tensors are, and an
    operation then waits for new pages, up to six times as long as it computes. Other C libraries
    have no such setting.

    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html; glibc's malloc/arena.c, heap_trim
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _LARGEST_INT)
        mallopt(_TOP_PAD, _HEAP_BYTES)
