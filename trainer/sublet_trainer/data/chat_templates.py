"""
Chat templates: the Jinja programs that come with a base model and spell a conversation as text. The
same sandbox, filters and functions that transformers offers them, without importing transformers;
tests render conversations with both. A template sees nothing but plain JSON values.

Source: https://huggingface.co/docs/transformers/chat_templating_writing
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Span = tuple[int, int]
"""The first character, and the one after the last."""
Turn = dict[str, Any]

_BEGIN, _END = "\ufdd0", "\ufdd1"
"""Around what {% generation %} encloses: noncharacters, removed from the values beforehand."""


class CompiledTemplate:
    """
    Args:
        special_tokens: `bos_token` and the like, which templates refer to by these names.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self._template = _ENVIRONMENT.from_string(source)
        self._special_tokens = special_tokens
        self.marks_generation = any(
            isinstance(node.call, nodes.Call)
            and isinstance(node.call.node, nodes.ExtensionAttribute)
            for node in _ENVIRONMENT.parse(source).find_all(nodes.CallBlock)
        )

    def render(
        self, turns: Sequence[Turn], tools: Sequence[Any] | None, *, header: bool = False
    ) -> tuple[str, list[Span]]:
        """
        The text, and the parts of it that the template marks as generated, if it marks any.

        Args:
            header: end with what comes before an answer of the assistant.
        """
        marked = self._template.render(
            messages=[_without_marks(_with_aliases(turn)) for turn in turns],
            tools=_without_marks(tools),
            documents=None,
            add_generation_prompt=header,
            **self._special_tokens,
        )
        return _taken_apart(marked)


def _with_aliases(turn: Turn) -> Turn:
    """Some templates read the reasoning as `thinking`."""
    reasoning = turn.get("reasoning_content")
    return turn if reasoning is None else {"thinking": reasoning, **turn}


def _without_marks(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return value.replace(_BEGIN, "").replace(_END, "")
    if isinstance(value, Mapping):
        return {key: _without_marks(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_without_marks(item) for item in value]
    return value


def _taken_apart(marked: str) -> tuple[str, list[Span]]:
    plain, *rest = marked.split(_BEGIN)
    spans = []
    for piece in rest:
        generated, _, after = piece.partition(_END)
        spans.append((len(plain), len(plain) + len(generated)))
        plain += generated + after
    return plain, spans


class _Generation(Extension):
    """{% generation %}...{% endgeneration %}: what the assistant said."""

    tags = {"generation"}  # noqa: RUF012  jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    @staticmethod
    def _marked(caller: Any) -> str:  # noqa: ANN401
        return f"{_BEGIN}{caller()}{_END}"


def _tojson(
    value: Any,  # noqa: ANN401
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own would escape for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)  # noqa: DTZ005  templates print the local date


_ENVIRONMENT = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
)
_ENVIRONMENT.filters["tojson"] = _tojson
_ENVIRONMENT.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
