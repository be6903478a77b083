"""
Several things handled together: each has an outcome of its own, and what one of them meets is no
other's business.
"""

from collections.abc import Callable
from typing import TypeVar

from sublet.errors import SubletError

T = TypeVar("T")


def attempt(act: Callable[[], T]) -> T | SubletError:
    """What came of it, an error of ours included; any other error is nobody's outcome."""
    try:
        return act()
    except SubletError as error:
        return error


def outcome(found: T | SubletError) -> T:
    """
    Raises:
        SubletError: what an attempt met.
    """
    if isinstance(found, SubletError):
        raise found
    return found
