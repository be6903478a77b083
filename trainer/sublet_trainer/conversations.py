"""
A conversation as its base model's chat template renders it, and which parts of that text the
assistant said. Where the template marks what is generated, it is believed; else a turn is what
rendering up to and including it adds to rendering up to it, and a template for which that is not so
is refused. What a template complains about is never repeated: it may quote the conversation.

Source: https://huggingface.co/docs/transformers/chat_templating_writing
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from sublet.errors import FailedPrecondition
from sublet.rows import BadRow, Message, Row

Span = tuple[int, int]
"""The first character, and the one after the last."""
Turn = dict[str, Any]
T = TypeVar("T")

_GENERATION_MARK: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")


class ChatTemplate:
    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.chat_template
        self._template = template if isinstance(template, str) else ""
        self._marks_generation = bool(_GENERATION_MARK.search(self._template))

    def render(self, row: Row) -> tuple[str, list[Span]]:
        """
        The text of a row's conversation, and the spans of its supervised turns, each with its
        end-of-turn token and without its header.

        Raises:
            BadRow: the template cannot render it, or changes earlier turns because of later ones.
            FailedPrecondition: the base model has no chat template.
        """
        if not self._template:
            raise FailedPrecondition(
                "the base model has no chat template; expected rows with `prompt` and `completion`"
            )
        messages = row.messages or []
        turns = [_as_template_sees(message) for message in messages]
        tools = [msgspec.json.decode(tool) for tool in row.tools or []] or None
        spans = self._spans_by_mark if self._marks_generation else self._spans_by_prefix
        return spans(messages, turns, tools)

    def _spans_by_mark(
        self, messages: Sequence[Message], turns: Sequence[Turn], tools: list[Any] | None
    ) -> tuple[str, list[Span]]:
        render: Any = render_jinja_template  # its annotation says str; it returns two lists
        (text,), (marked,) = _guarded(
            lambda: render(
                conversations=[turns],
                tools=tools,
                chat_template=self._template,
                return_assistant_tokens_mask=True,
                **self._tokenizer.special_tokens_map,
            )
        )
        answers = [message for message in messages if message.role == "assistant"]
        if all(answer.is_supervised for answer in answers):
            return text, marked
        if len(marked) != len(answers):
            raise BadRow("has a turn of weight 0 that the chat template does not set apart")
        pairs = zip(marked, answers, strict=True)
        return text, [span for span, answer in pairs if answer.is_supervised]

    def _spans_by_prefix(
        self, messages: Sequence[Message], turns: Sequence[Turn], tools: list[Any] | None
    ) -> tuple[str, list[Span]]:
        def rendered(num_turns: int, *, header: bool = False) -> str:
            return str(
                _guarded(
                    lambda: self._tokenizer.apply_chat_template(
                        list(turns[:num_turns]),
                        tools=tools,
                        tokenize=False,
                        add_generation_prompt=header,
                    )
                )
            )

        whole = rendered(len(turns))
        spans = []
        for place, message in enumerate(messages):
            if not message.is_supervised:
                continue
            before = rendered(place, header=True)
            after = rendered(place + 1)
            if not (after.startswith(before) and whole.startswith(after)):
                raise BadRow("is rendered by the chat template in a way that changes earlier turns")
            # What follows the end-of-turn token is the template's, not the assistant's.
            spans.append((len(before), len(after.rstrip())))
        return whole, spans


def _guarded(render: Callable[[], T]) -> T:
    try:
        return render()
    except Exception:  # noqa: BLE001  a template is a program: it may raise anything, quoting anything
        raise BadRow("is refused by the base model's chat template") from None


def _as_template_sees(message: Message) -> Turn:
    turn: Turn = {"role": message.role, "content": message.text}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            turn[name] = value
    if message.tool_calls:
        turn["tool_calls"] = [msgspec.json.decode(call) for call in message.tool_calls]
    return turn
