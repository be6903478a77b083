"""Durations as people write them."""

import re
from datetime import timedelta
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
