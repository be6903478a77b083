"""
Patience with passing faults, the same for broker, metadata server and storage: full jitter under a
doubling ceiling, Retry-After where a server names it, and an end. What is not a passing fault is
returned to the caller to judge.

Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ (full jitter);
https://cloud.google.com/storage/docs/retry-strategy (which answers to retry)
"""

import random
import time
from collections.abc import Callable
from typing import Final

import httpx

from sublet.errors import TryAgain

PASSING_FAULTS: Final = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_CEILING_S: Final = 0.25
_LAST_CEILING_S: Final = 8.0


def persist(
    send: Callable[[], httpx.Response],
    *,
    what: str,
    until: float,
    wait: Callable[[float], object] = time.sleep,
) -> httpx.Response:
    """
    Send until the answer is no passing fault.

    Args:
        send: one try; whatever part of it succeeded before a fault is its own to remember.
        what: the sentence's subject if patience ends.
        until: reading of time.monotonic() after which no new try begins.
        wait: sleeps that many seconds, or less if the run must stop; `send` then raises the reason.

    Raises:
        TryAgain: the fault had not passed by then.
    """
    started, ceiling_s, num_tries = time.monotonic(), _FIRST_CEILING_S, 0
    while True:
        num_tries += 1
        asked_for_s = 0.0
        try:
            response = send()
        except (httpx.TransportError, TryAgain) as error:
            fault = str(error) if isinstance(error, TryAgain) else type(error).__name__
        else:
            if response.status_code not in PASSING_FAULTS:
                return response
            fault = f"HTTP {response.status_code}"
            asked_for_s = _retry_after_s(response)
        pause_s = max(asked_for_s, random.uniform(0, ceiling_s))  # noqa: S311  jitter is no secret
        now = time.monotonic()
        if now + pause_s > until:
            raise TryAgain(f"{what}: {fault} after {num_tries} tries in {now - started:.0f} s")
        wait(pause_s)
        ceiling_s = min(2 * ceiling_s, _LAST_CEILING_S)


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds from a Retry-After header; its other form, a date, counts as none given."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
