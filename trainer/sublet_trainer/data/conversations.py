"""
A conversation as its base model's chat template renders it, and which parts of that text the
assistant said. Where the template marks what is generated, it is believed; else a turn is what
rendering up to and including it adds to the prompt for it, as far as the two agree: a prompt that
asks for thinking is left where an answer does without. Some templates change earlier turns because
of later ones (they leave out what was thought in them): such a conversation is unrolled into one
for each turn that is learnt, each as inference would have seen it. What a template complains about
is never repeated: it may quote the conversation.

Source: https://huggingface.co/docs/transformers/chat_templating_writing;
https://huggingface.co/docs/transformers/chat_extras (arguments of tool calls are objects)
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import msgspec
from msgspec import structs

from sublet.errors import FailedPrecondition
from sublet.rows import BadRow, Message, Row
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.chat_templates import CompiledTemplate, Span, Turn

T = TypeVar("T")
_DEFAULT, _WITH_TOOLS = "default", "tool_use"


class ChangesEarlierTurns(BadRow):
    """Raised for a conversation whose turns cannot all be found in one rendering of it."""


class ChatTemplate:
    def __init__(self, tokenizer: BaseTokenizer) -> None:
        self._templates: Mapping[str, CompiledTemplate] = {
            name: CompiledTemplate(source, tokenizer.special_tokens)
            for name, source in tokenizer.chat_templates.items()
            if name in (_DEFAULT, _WITH_TOOLS)
        }

    def asked(self, messages: Sequence[Message], tools: Sequence[msgspec.Raw] | None) -> str:
        """
        The text of a conversation up to where the assistant's next turn begins.

        Raises:
            BadRow: the template cannot render it.
            FailedPrecondition: the base model has no chat template.
        """
        turns = [_as_template_sees(message) for message in messages]
        decoded = [msgspec.json.decode(tool) for tool in tools or []] or None
        template = self._template_for(has_tools=bool(decoded))
        return _guarded(lambda: template.render(turns, decoded, header=True))[0]

    def render(self, row: Row) -> tuple[str, list[Span]]:
        """
        The text of a row's conversation, and the spans of its supervised turns, each with its
        end-of-turn token and without its header.

        Raises:
            BadRow: the template cannot render it.
            ChangesEarlierTurns: because of later ones.
            FailedPrecondition: the base model has no chat template.
        """
        messages = row.messages or []
        turns = [_as_template_sees(message) for message in messages]
        tools = [msgspec.json.decode(tool) for tool in row.tools or []] or None
        template = self._template_for(has_tools=bool(tools))

        def rendered(num_turns: int, *, header: bool = False) -> tuple[str, list[Span]]:
            return _guarded(lambda: template.render(turns[:num_turns], tools, header=header))

        text, marked = rendered(len(turns))
        if template.marks_generation:
            return text, _supervised(marked, messages)
        return text, _spans_by_prefix(messages, text, rendered)

    def _template_for(self, *, has_tools: bool) -> CompiledTemplate:
        template = self._templates.get(_WITH_TOOLS if has_tools else _DEFAULT)
        template = template or self._templates.get(_DEFAULT)
        if template is None:
            raise FailedPrecondition(
                "the base model has no chat template; expected rows with `prompt` and `completion`"
            )
        return template


def unrolled(row: Row) -> list[Row]:
    """A conversation for each turn that is learnt, which ends with it and learns nothing else."""
    messages = row.messages or []
    return [
        structs.replace(row, messages=[*map(unlearnt, messages[:place]), message])
        for place, message in enumerate(messages)
        if message.is_supervised
    ]


def unlearnt(message: Message) -> Message:
    """The same turn as context alone."""
    return structs.replace(message, weight=0) if message.role == "assistant" else message


def _supervised(marked: Sequence[Span], messages: Sequence[Message]) -> list[Span]:
    """
    Those of the marked spans that the row wants learnt.

    Raises:
        BadRow: some turns are not to be learnt, and the marks do not tell which they are.
    """
    answers = [message for message in messages if message.role == "assistant"]
    if all(answer.is_supervised for answer in answers):
        return list(marked)
    if len(marked) != len(answers):
        raise BadRow("has a turn of weight 0 that the chat template does not set apart")
    pairs = zip(marked, answers, strict=True)
    return [span for span, answer in pairs if answer.is_supervised]


def _spans_by_prefix(
    messages: Sequence[Message], whole: str, rendered: Callable[..., tuple[str, list[Span]]]
) -> list[Span]:
    spans = []
    for place, message in enumerate(messages):
        if not message.is_supervised:
            continue
        prompt, after = rendered(place, header=True)[0], rendered(place + 1)[0]
        start = _shared(prompt, after)
        is_answer_to_it = start == len(prompt) or start > len(rendered(place)[0])
        if not (is_answer_to_it and whole.startswith(after)):
            raise ChangesEarlierTurns(
                "is rendered by the chat template in a way that changes earlier turns"
            )
        # What follows the end-of-turn token is the template's, not the assistant's.
        spans.append((start, len(after.rstrip())))
    return spans


def _shared(prompt: str, after: str) -> int:
    """How many characters both begin with."""
    if after.startswith(prompt):
        return len(prompt)
    pairs = enumerate(zip(prompt, after, strict=False))
    return next((place for place, (one, other) in pairs if one != other), len(after))


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
        turn["tool_calls"] = [_as_template_sees_call(call) for call in message.tool_calls]
    return turn


def _as_template_sees_call(raw: msgspec.Raw) -> Any:  # noqa: ANN401  JSON is any
    """
    With its arguments as an object, as templates want them: they come as text, which a template
    would quote once more. What serves the model does the same.
    """
    call = msgspec.json.decode(raw)
    function = call.get("function") if isinstance(call, dict) else None
    if isinstance(function, dict) and isinstance(function.get("arguments"), str):
        with suppress(msgspec.DecodeError):
            function["arguments"] = msgspec.json.decode(function["arguments"])
    return call
