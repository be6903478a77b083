"""Of processes that are nobody's children any more."""

from contextlib import suppress

import psutil


def lives(process: psutil.Process) -> bool:
    """Not of one that is dead and that whoever it was left to, init, has not buried yet."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
