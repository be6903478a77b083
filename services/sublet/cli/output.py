"""What commands print: `Title Case Key: value` lines, or the JSON itself."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import click


def show(resource: Mapping[str, Any], output: str) -> None:
    if output == "json":
        click.echo(json.dumps(resource, indent=2))
    else:
        click.echo("\n".join(_lines(resource)))


def show_all(resources: Iterable[Mapping[str, Any]], output: str) -> None:
    """In text, one block for each, an empty line between; in JSON, one array."""
    if output == "json":
        click.echo(json.dumps(list(resources), indent=2))
        return
    for number, resource in enumerate(resources):
        if number:
            click.echo()
        click.echo("\n".join(_lines(resource)))


def _lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, item in value.items():
        title = f"{indent}{_title(key)}:"
        if isinstance(item, Mapping):
            lines += [title, *_lines(item, indent + "  ")]
        elif isinstance(item, list):
            lines += [title, *(_item(one, indent + "  ") for one in item)]
        elif item not in ("", None):
            lines.append(f"{title} {_text(item)}")
    return lines


def _item(value: Any, indent: str) -> str:  # noqa: ANN401  JSON is any
    if not isinstance(value, Mapping):
        return f"{indent}- {_text(value)}"
    if "verdict" in value:
        return _fact(value, indent)
    inner = _lines(value, indent + "  ")
    return "\n".join([f"{indent}- {inner[0].strip()}", *inner[1:]]) if inner else f"{indent}-"


def _fact(fact: Mapping[str, Any], indent: str) -> str:
    mark = "REFUSED" if fact["refuses"] else "ok" if fact["verdict"] == "PROVED" else "note"
    line = f"{indent}{mark:8}{fact['verdict']:12}{fact['fact']}: {fact['evidence']}"
    return line + (f"\n{indent}{'':8}run: {fact['fix']}" if fact["refuses"] and fact["fix"] else "")


def _title(key: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", key)
    return words[:1].upper() + words[1:]


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
