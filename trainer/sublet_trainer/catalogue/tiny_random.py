"""
A Llama of about 100,000 weights that knows nothing: two layers, a byte-level tokenizer, ChatML. Its
weights come from a hash, so they are the same bits on every machine and under every numpy.
"""

from collections.abc import Callable
from hashlib import shake_256
from math import prod, sqrt
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sublet_trainer.catalogue.weights import PlannedTensor, write_safetensors
from sublet_trainer.data.tokenizer_files import write_tokenizer

_HIDDEN, _INTERMEDIATE, _NUM_LAYERS, _NUM_HEADS, _NUM_KV_HEADS = 64, 160, 2, 4, 2
_HEAD: Final = _HIDDEN // _NUM_HEADS
_MAX_LENGTH: Final = 2048
_SPECIALS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VOCAB_SIZE: Final = len(_SPECIALS) + 256
_CHATML: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_tiny_random(folder: Path) -> None:
    planned = {
        name: PlannedTensor(shape, _values(name, shape)) for name, shape in _shapes().items()
    }
    write_safetensors(folder / "model.safetensors", planned, dtype="F32")
    write_tokenizer(
        folder,
        vocabulary=[*_SPECIALS, *_byte_alphabet()],
        merges=[],
        specials=_SPECIALS,
        splits_digits=False,
        roles={
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",  # as SmolLM2 has it, so that tests meet the same trap
            "unk_token": "<|endoftext|>",
        },
        chat_template=_CHATML,
        max_length=_MAX_LENGTH,
    )
    ids = {name: _SPECIALS.index(f"<|im_{name}|>") for name in ("start", "end")}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": _NUM_LAYERS,
        "num_attention_heads": _NUM_HEADS,
        "num_key_value_heads": _NUM_KV_HEADS,
        "max_position_embeddings": _MAX_LENGTH,
        "vocab_size": _VOCAB_SIZE,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "bos_token_id": ids["start"],
        "eos_token_id": ids["end"],
        "pad_token_id": ids["end"],
    }
    (folder / "config.json").write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2))


def _shapes() -> dict[str, tuple[int, ...]]:
    layer = {
        "input_layernorm": (_HIDDEN,),
        "self_attn.q_proj": (_NUM_HEADS * _HEAD, _HIDDEN),
        "self_attn.k_proj": (_NUM_KV_HEADS * _HEAD, _HIDDEN),
        "self_attn.v_proj": (_NUM_KV_HEADS * _HEAD, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _NUM_HEADS * _HEAD),
        "post_attention_layernorm": (_HIDDEN,),
        "mlp.gate_proj": (_INTERMEDIATE, _HIDDEN),
        "mlp.up_proj": (_INTERMEDIATE, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INTERMEDIATE),
    }
    layers = {
        f"model.layers.{number}.{name}.weight": shape
        for number in range(_NUM_LAYERS)
        for name, shape in layer.items()
    }
    outside = {"model.embed_tokens.weight": (_VOCAB_SIZE, _HIDDEN), "model.norm.weight": (_HIDDEN,)}
    return {**outside, **layers}


def _values(name: str, shape: tuple[int, ...]) -> Callable[[], NDArray[np.float32]]:
    def uniform() -> NDArray[np.float32]:
        """Uniform with variance 1 / fan-in; norms are ones."""
        if len(shape) == 1:
            return np.ones(shape, np.float32)
        drawn = np.frombuffer(shake_256(name.encode()).digest(4 * prod(shape)), "<u4")
        bound = sqrt(3 / shape[1])
        return ((drawn / 2**31 - 1) * bound).astype(np.float32).reshape(shape)

    return uniform


def _byte_alphabet() -> list[str]:
    """GPT-2's spelling of the 256 bytes: printable ones as they are, the others from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
