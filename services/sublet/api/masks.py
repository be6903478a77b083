"""
Read masks: an answer cut down to the fields that were asked for.

Source: https://google.aip.dev/157
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadMask:
    """No path is the same as all. A name is camelCase or snake_case, dots lead inside."""

    paths: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "ReadMask":
        text = query.get("readMask") or query.get("read_mask") or ""
        names = [name.strip() for name in text.split(",") if name.strip()]
        if "*" in names:
            return cls()
        return cls(tuple(tuple(camel(part) for part in name.split(".")) for name in names))

    def applied_to(self, resource: Json) -> Json:
        if not self.paths:
            return resource
        shown: Json = {}
        for path in self.paths:
            _copy(resource, shown, path)
        return shown


def _copy(source: Json, target: Json, path: tuple[str, ...]) -> None:
    first, *rest = path
    if first not in source:
        return
    inner = source[first]
    if rest and isinstance(inner, dict):
        _copy(inner, target.setdefault(first, {}), tuple(rest))
    else:
        target[first] = inner


def camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)
