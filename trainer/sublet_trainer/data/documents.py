"""
From a row to one document's token ids and which of them are supervised. A conversation is tokenised
whole, so training sees the tokens that inference will; supervised are the assistant's turns from
after the generation header to the end-of-turn token inclusive, and of a completion row the
completion and the end token. Masks come from places in the text, never from ids: SmolLM2's padding
token is its end-of-turn token.

Shapes: T tokens of one document, S supervised tokens of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sublet.rows import BadRow, Row, RowFormat
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.chat_templates import Span
from sublet_trainer.data.conversations import ChangesEarlierTurns, ChatTemplate, unrolled
from sublet_trainer.data.samples import WORDS_ALONE, Worth


@dataclass(frozen=True, slots=True)
class Document:
    """
    `weight` multiplies the loss of its supervised tokens. The first never is one. `line` is that of
    its row in the object, from 1. What it is worth, and `has_rival`, are as in data.samples;
    `sampled_logp_S` are the log-probabilities of its sampling, if known.
    """

    ids_T: NDArray[np.int32]
    is_supervised_T: NDArray[np.bool_]
    weight: float
    is_truncated: bool
    line: int = 0
    reward: float | None = None
    advantage: float = 0.0
    has_rival: bool = False
    sampled_logp_S: NDArray[np.float32] | None = None

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
    worth: Worth


class UnfitLogprobs(BadRow):
    """Raised where a sample's logprobs are not one for each token of its last turn."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


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

    def renderings(self, row: Row, *, line: int = 0, worth: Worth = WORDS_ALONE) -> list[Rendered]:
        """
        The row as one document, or where that cannot be, one for each turn that is learnt.

        Raises:
            BadRow: the chat template cannot render this conversation.
        """
        try:
            return [self.render(row, line=line, worth=worth)]
        except ChangesEarlierTurns:
            return [self.render(one, line=line, worth=worth) for one in unrolled(row)]

    def render(self, row: Row, *, line: int = 0, worth: Worth = WORDS_ALONE) -> Rendered:
        """
        Raises:
            BadRow: the chat template cannot render this conversation.
        """
        if row.format is RowFormat.COMPLETION:
            return Rendered(row.completion or "", [], row.prompt or "", row.weight, line, worth)
        text, spans = self._chat.render(row)
        if worth.is_cut_short:
            spans = [_without_end(row, text, spans[-1])]
        return Rendered(text, spans, None, row.weight, line, worth)

    def documents(self, rows: Sequence[Rendered]) -> list[Document]:
        """
        Tokenise a batch of rows, on every core.

        Raises:
            UnfitLogprobs: a sample's are not one for each token that is learnt.
        """
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
        logp_S = _sampled_logp(row, int(is_supervised_T.sum()))
        num_kept = int(is_supervised_T[: self._max_tokens].sum())
        return Document(
            ids_T=np.asarray(ids[: self._max_tokens], np.int32),
            is_supervised_T=is_supervised_T[: self._max_tokens],
            weight=1.0 if row.weight is None else row.weight,
            is_truncated=len(ids) > self._max_tokens,
            line=row.line,
            reward=row.worth.reward,
            advantage=row.worth.advantage,
            has_rival=row.worth.has_rival,
            sampled_logp_S=None if logp_S is None else logp_S[:num_kept],
        )


def _without_end(row: Row, text: str, span: Span) -> Span:
    """
    The span without the end of turn that the template adds to words that had none.

    Raises:
        BadRow: the template shows the words otherwise than they are, so that they have no end.
    """
    said = (row.messages or [])[-1].text.strip()
    if not said:
        return span[0], span[0]
    place = text.find(said, *span)
    if place < 0:
        raise BadRow("was cut short, and the chat template does not show its words as they are")
    return span[0], place + len(said)


def _sampled_logp(row: Rendered, num_supervised: int) -> NDArray[np.float32] | None:
    logprobs = row.worth.logprobs
    if logprobs is None:
        return None
    if len(logprobs) != num_supervised:
        raise UnfitLogprobs(
            row.line,
            f"a sample has {len(logprobs)} logprobs; expected {num_supervised}, one for each token "
            "of its last turn: leave logprobs out if another tokenizer gave them",
        )
    return np.asarray(logprobs, np.float32)
