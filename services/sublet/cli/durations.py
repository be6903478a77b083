"""Durations and moments as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


class Duration(click.ParamType[timedelta]):
    """Such as 90s, 2h or 1h30m."""

    name = "DURATION"

    def convert(
        self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None
    ) -> timedelta:
        if isinstance(value, timedelta):
            return value
        if not _DURATION.fullmatch(value):
            self.fail(f"got {value!r}; expected a duration such as 90s, 2h or 1h30m", param, ctx)
        pieces = re.findall(r"([\d.]+)([smhd])", value)
        return timedelta(seconds=sum(float(n) * _UNITS_S[unit] for n, unit in pieces))


class Moment(click.ParamType[str]):
    """A date, or a date and a time, of UTC unless it says otherwise; as RFC 3339."""

    name = "TIME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value:
            return value
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            expected = "2027-06-30 or 2027-06-30T12:00:00Z"
            self.fail(f"got {value!r}; expected such as {expected}", param, ctx)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        return f"{time:%Y-%m-%dT%H:%M:%SZ}"
