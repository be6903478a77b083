"""
Writes a byte-level BPE tokenizer as the two files that transformers reads. No post-processor: the
chat template places every special token itself.

Source: https://huggingface.co/docs/tokenizers/components
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


def write_tokenizer(
    folder: Path,
    *,
    vocabulary: Sequence[str],
    merges: Sequence[Sequence[str]],
    specials: Sequence[str],
    splits_digits: bool,
    roles: Mapping[str, str],
    chat_template: str,
    max_length: int,
) -> None:
    """
    Args:
        vocabulary: a token's place in it is its id; bytes are spelt in GPT-2's printable alphabet.
        roles: which special token is `bos_token`, `eos_token`, `pad_token` and `unk_token`.
        splits_digits: 1234 becomes four tokens before BPE sees it.
    """
    id_of = {token: place for place, token in enumerate(vocabulary)}
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
    digits = [{"type": "Digits", "individual_digits": True}] if splits_digits else []
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id_of[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in specials
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": id_of,
            "merges": merges,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "additional_special_tokens": list(specials),
        "model_max_length": max_length,
        "clean_up_tokenization_spaces": False,
        "chat_template": chat_template,
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))
