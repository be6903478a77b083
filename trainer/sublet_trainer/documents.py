"""
From a row to one document's token ids and which of them are supervised. A conversation is tokenised
whole, so training sees the tokens that inference will; supervised are the assistant's turns from
after the generation header to the end-of-turn token inclusive, and of a completion row the
completion and the end token. Masks come from places in the text, never from ids: SmolLM2's padding
token is its end-of-turn token.

Shapes: T tokens of one document.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublet.rows import Row, RowFormat
from sublet_trainer.base_tokenizer import BaseTokenizer
from sublet_trainer.chat_templates import Span
from sublet_trainer.conversations import ChatTemplate


@dataclass(frozen=True, slots=True)
class Document:
    """
    `weight` multiplies the loss of its supervised tokens. The first never is one. `line` is that of
    its row in the object, from 1.
    """

    ids_T: NDArray[np.int32]
    is_supervised_T: NDArray[np.bool_]
    weight: float
    is_truncated: bool
    line: int = 0

    @property
    def num_supervised(self) -> int:
        return int(self.is_supervised_T.sum())


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text to tokenise; `prompt` is None for a conversation, `spans` its supervised parts."""

    text: str
    spans: Sequence[Span]
    prompt: str | None
    weight: float | None
    line: int


class Tokeniser:
    """
    Args:
        max_tokens: longer documents lose their end.
    """

    def __init__(self, tokenizer: BaseTokenizer, *, max_tokens: int) -> None:
        self._encode = tokenizer.backend.encode_batch
        self._end_id = tokenizer.end_id
        self._chat = ChatTemplate(tokenizer)
        self._max_tokens = max_tokens

    def render(self, row: Row, *, line: int = 0) -> Rendered:
        """
        Raises:
            BadRow: the chat template cannot render this conversation.
        """
        if row.format is RowFormat.COMPLETION:
            return Rendered(row.completion or "", [], row.prompt or "", row.weight, line)
        text, spans = self._chat.render(row)
        return Rendered(text, spans, None, row.weight, line)

    def documents(self, rows: Sequence[Rendered]) -> list[Document]:
        """Tokenise a batch of rows, on every core."""
        texts = self._encode([row.text for row in rows], add_special_tokens=False)
        prompts = self._encode([row.prompt or "" for row in rows], add_special_tokens=True)
        return [
            self._conversation(row, text)
            if row.prompt is None
            else self._completion(row, prompt.ids, text.ids)
            for row, text, prompt in zip(rows, texts, prompts, strict=True)
        ]

    def _conversation(self, row: Rendered, encoding: Any) -> Document:  # noqa: ANN401
        num_tokens = len(encoding.ids)
        first_T = np.fromiter((first for first, _ in encoding.offsets), np.int64, num_tokens)
        is_supervised_T = np.zeros(num_tokens, np.bool_)
        for start, end in row.spans:
            is_supervised_T |= (first_T >= start) & (first_T < end)
        return self._document(row, encoding.ids, is_supervised_T)

    def _completion(self, row: Rendered, prompt: list[int], completion: list[int]) -> Document:
        ids = [*prompt, *completion, self._end_id]
        return self._document(row, ids, np.arange(len(ids)) >= len(prompt))

    def _document(
        self, row: Rendered, ids: list[int], is_supervised_T: NDArray[np.bool_]
    ) -> Document:
        is_supervised_T[:1] = False  # nothing comes before it from which it could be predicted
        return Document(
            ids_T=np.asarray(ids[: self._max_tokens], np.int32),
            is_supervised_T=is_supervised_T[: self._max_tokens],
            weight=1.0 if row.weight is None else row.weight,
            is_truncated=len(ids) > self._max_tokens,
            line=row.line,
        )
