"""
When a request is sent once more, and after how long. Only if the first one cannot have had an
effect, or if two have the effect of one. Faults on the way are tried a few times; a control plane
that says "try again" knows why, and is asked again for as long as a caller can be expected to wait.

Source: https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter
"""

import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from sublet.errors import AlreadyExists, Conflict, SubletError, TryAgain

_FIRST_S: Final = 0.5
_LONGEST_S: Final = 8.0


def _unnoticed(failure: SubletError, pause_s: float) -> None:
    del failure, pause_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """
    Args:
        most: how often a fault on the way is tried again.
        patience_s: how long a request waits in all. A data account that has just been used is dark
            for about a minute, so two minutes see most creates through.
        sleep: waits so many seconds.
        jitter: a number from 0 to 1; callers that failed together must not come back together.
        notice: told of each failure that is waited out, and of the seconds.
    """

    most: int = 2
    patience_s: float = 120.0
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    notice: Callable[[SubletError, float], None] = _unnoticed


class Attempts:
    """Those of one request."""

    def __init__(self, retries: Retries) -> None:
        self._retries = retries
        self._num_failed = 0
        self._waited_s = 0.0

    @property
    def is_first(self) -> bool:
        return self._num_failed == 0

    def wait(
        self, failure: SubletError, *, is_invited: bool = False, advised_s: float | None = None
    ) -> bool:
        """
        Wait until the next attempt, and return True; or return False: it is enough.

        Args:
            is_invited: the control plane itself says to try again.
            advised_s: the least that it says to wait.
        """
        self._num_failed += 1
        back_off_s = min(_FIRST_S * 2.0 ** (self._num_failed - 1), _LONGEST_S)
        pause_s = max(back_off_s * (1 - self._retries.jitter() / 4), advised_s or 0.0)
        if self._waited_s + pause_s > self._retries.patience_s:
            return False
        if self._num_failed > self._retries.most and not is_invited:
            return False
        self._retries.notice(failure, pause_s)
        self._retries.sleep(pause_s)
        self._waited_s += pause_s
        return True


def may_repeat(refusal: SubletError, headers: Mapping[str, str], *, is_harmless: bool) -> bool:
    """
    True if sending the refused request again can help. `x-should-retry` decides where it is there.

    Args:
        is_harmless: the request had no effect, or twice its effect is the same as once.
    """
    advice = headers.get("x-should-retry", "").lower()
    if advice in ("true", "false"):
        return advice == "true"
    if isinstance(refusal, Conflict):
        return not isinstance(refusal, AlreadyExists)
    return isinstance(refusal, TryAgain) and is_harmless


def advised_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """
    Retry-After in seconds, from its number or its date; None if it says nothing that can be read.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    with suppress(ValueError):
        date = parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return max(0.0, (date - now).total_seconds())
    return None


def made_up_id(kind: str) -> str:
    """An id of ours, so that a request whose answer was lost is repeated without a second job."""
    return f"{kind}-{secrets.token_hex(6)}"
