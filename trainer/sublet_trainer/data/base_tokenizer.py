"""
The tokenizer of a base model: its tokenizer.json as the library tokenizers reads it, and from the
files beside it the end token, the special tokens and the chat templates. Nothing is rebuilt from a
vocabulary, no code of the model is run: a model without a tokenizer.json is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import msgspec
from tokenizers import Tokenizer

from sublet.errors import FailedPrecondition

_ROLES: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
_TOOL_USE: Final = "tool_use"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTokenizer:
    """`chat_templates` by name; "default" is the one, or the one of several."""

    backend: Tokenizer
    end_id: int
    special_tokens: Mapping[str, str]
    chat_templates: Mapping[str, str]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """
        Raises:
            FailedPrecondition: there is no tokenizer.json, or no end token.
        """
        config = _json(folder / "tokenizer_config.json")
        special_tokens = _special_tokens(_json(folder / "special_tokens_map.json") | config)
        if not (folder / "tokenizer.json").is_file():
            raise FailedPrecondition("the base model has no tokenizer.json; expected one")
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        end_id = backend.token_to_id(special_tokens.get("eos_token", ""))
        if end_id is None:
            raise FailedPrecondition("the base model's tokenizer has no eos_token; expected one")
        backend.no_truncation()
        backend.no_padding()
        return cls(
            backend=backend,
            end_id=end_id,
            special_tokens=special_tokens,
            chat_templates=_chat_templates(folder, config.get("chat_template")),
        )


def _json(path: Path) -> dict[str, Any]:
    return msgspec.json.decode(path.read_bytes()) if path.is_file() else {}


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for role in _ROLES:
        said = config.get(role)
        token = said.get("content") if isinstance(said, dict) else said
        if isinstance(token, str):
            found[role] = token
    return found


def _chat_templates(folder: Path, said: Any) -> dict[str, str]:  # noqa: ANN401
    """A file chat_template.jinja beats tokenizer_config.json, as it does in transformers."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        others = sorted((folder / "additional_chat_templates").glob("*.jinja"))
        return {"default": file.read_text()} | {one.stem: one.read_text() for one in others}
    if isinstance(said, str):
        return {"default": said}
    return {one["name"]: one["template"] for one in said or []}
