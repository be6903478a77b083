"""Our own forward pass is transformers', for every kind of model that we say we know."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from references import AutoConfig, AutoModelForCausalLM
from torch._dynamo.utils import counters
from trainer_steps import gradient_of

from sublet.errors import FailedPrecondition
from sublet_trainer.data.documents import Document
from sublet_trainer.data.packing import pack
from sublet_trainer.models import llama
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.base import load_base
from sublet_trainer.models.compiler import TorchCompiler
from sublet_trainer.models.llama import Llama

CPU = torch.device("cpu")
SIZES = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "vocab_size": 96,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KNOWN = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama with a head of its own": {"model_type": "llama", "tie_word_embeddings": False},
    "llama with biases": {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama with wide heads": {"model_type": "llama", "head_dim": 16},
    "llama 3.1's rope": {"model_type": "llama", "rope_parameters": LLAMA3_ROPE},
    "linear rope": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
}
OTHER = {"model_type": "gemma", "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"}


def saved(folder, config):
    """A model of transformers' making, with weights that leave nothing at zero or one."""
    config = AutoConfig.for_model(**{**SIZES, **config})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return model


def document(length):
    ids = torch.randint(
        SIZES["vocab_size"], (length,), generator=torch.Generator().manual_seed(length)
    )
    is_supervised = torch.arange(length) > length // 3
    return Document(ids.int().numpy(), is_supervised.numpy(), weight=1.0, is_truncated=False)


def gone_on(beginning, length):
    """Another document that begins as this one does."""
    other = document(length)
    ids = np.concatenate([beginning.ids_T[: length // 2], other.ids_T[length // 2 :]])
    return replace(other, ids_T=ids)


DOCUMENTS = [document(length) for length in (29, 3, 140)]
"""The last of these is longer than a block of queries."""
DOCUMENTS += [gone_on(DOCUMENTS[2], 60), gone_on(DOCUMENTS[2], 280), DOCUMENTS[0]]


def log_probs_of_transformers(model, one):
    ids = torch.from_numpy(one.ids_T).long()
    logp = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
    return logp.gather(1, ids[1:, None])[:, 0][torch.from_numpy(one.is_supervised_T)[1:]]


@pytest.mark.parametrize("config", KNOWN.values(), ids=KNOWN.keys())
def test_log_probabilities_equal_those_of_transformers_to_four_decimals(config, tmp_path):
    theirs = saved(tmp_path, config)
    ours = LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=torch.float32)
    assert isinstance(ours._base, Llama)
    (row,) = pack(DOCUMENTS, capacity=1000, device=CPU)
    expected = torch.cat([log_probs_of_transformers(theirs, one) for one in DOCUMENTS])
    torch.testing.assert_close(ours.log_probs(row), expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize(
    "config",
    [
        OTHER,
        {"model_type": "llama", "hidden_act": "gelu"},
        {"model_type": "mistral", "sliding_window": 128},
        {"model_type": "llama", "rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
        {"model_type": "llama", "quantization_config": {"quant_method": "gptq"}},
    ],
    ids=["another kind", "activation", "sliding window", "rope", "quantised"],
)
def test_what_is_not_known_is_not_ours(config):
    assert not llama.is_known({**SIZES, "rms_norm_eps": 1e-6, **config})


def test_another_architecture_is_trained_through_transformers_with_the_same_numbers(tmp_path):
    theirs = saved(tmp_path, OTHER)
    ours = LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=torch.float32)
    assert not isinstance(ours._base, Llama)
    (row,) = pack(DOCUMENTS, capacity=1000, device=CPU)
    expected = torch.cat([log_probs_of_transformers(theirs, one) for one in DOCUMENTS])
    torch.testing.assert_close(ours.log_probs(row), expected, rtol=1e-4, atol=5e-5)
    recomputed = ours.log_probs(row, recomputes=True)
    recomputed.sum().backward()
    gradients = [one.grad for name, one in ours.parameters().items() if "lora_B" in name]
    assert len(gradients) == 14
    assert all(one.abs().sum() > 0 for one in gradients)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            {"model_type": "gemma2", "head_dim": 8, "final_logit_softcapping": 30.0},
            "logit_softcapping",
        ),
        ({"model_type": "mistral", "sliding_window": 8}, "asks for sliding_window"),
        ({"model_type": "llama", "attention_dropout": 0.1}, "a mask or dropout"),
        ({"model_type": "gpt2"}, "has none of the layers"),
    ],
    ids=["scaled logits", "sliding window", "dropout", "other names"],
)
def test_what_we_cannot_do_is_refused_not_ignored(config, reason, tmp_path):
    saved(tmp_path, config)
    (row,) = pack(DOCUMENTS[:1], capacity=1000, device=CPU)
    with pytest.raises(FailedPrecondition, match=reason):
        LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=torch.float32).log_probs(row)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_by_its_name(tmp_path):
    saved(tmp_path, KNOWN["llama with a head of its own"])
    config = json.loads((tmp_path / "config.json").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(FailedPrecondition, match=r"lacks 9 of 30 .* model\.layers\.2\.input_lay"):
        load_base(tmp_path, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("llama with biases", {}), ("qwen3", {}), ("llama", {"use_dora": True})],
    ids=["biases", "norms of heads", "DoRA"],
)
def test_compiled_layers_come_to_the_same_by_one_program_for_all(kind, shape, tmp_path):
    """By torch's tracer alone, which is what could leave something out; two layers of three."""
    saved(tmp_path, {**KNOWN[kind], "num_hidden_layers": 3})
    model = LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=torch.float32, **shape)
    torch.manual_seed(1)
    for parameter in model.parameters().values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    rows = [pack(some, capacity=1000, device=CPU)[0] for some in (DOCUMENTS[:2], DOCUMENTS)]
    ways = [(row, recomputes) for row in rows for recomputes in (False, True)]
    written = [gradient_of(model, row, recomputes=recomputes) for row, recomputes in ways]

    torch._dynamo.reset()
    counters.clear()
    model.compile_layers(TorchCompiler("aot_eager"))
    compiled = [gradient_of(model, row, recomputes=recomputes) for row, recomputes in ways]
    with model.evaluating():
        model.log_probs(rows[0])
    assert counters["stats"]["unique_graphs"] == 2
    for expected, found in zip(written, compiled, strict=True):
        assert (found - expected).norm() < 1e-5 * expected.norm()
    model.compile_layers(None)
    assert torch.equal(gradient_of(model, rows[0]), written[0])


def test_what_is_not_ours_is_never_compiled(tmp_path):
    saved(tmp_path, OTHER)
    model = LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=torch.float32)
    assert not model.is_compilable


def test_bf16_gives_the_numbers_of_fp32_to_its_own_precision(tmp_path):
    saved(tmp_path, KNOWN["qwen3"])
    (row,) = pack(DOCUMENTS, capacity=1000, device=CPU)
    exact, rounded = (
        LoraModel(tmp_path, rank=2, seed=0, device=CPU, dtype=dtype).log_probs(row).mean().item()
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rounded == pytest.approx(exact, rel=0.02)
    assert rounded != exact


def test_the_base_alone_is_what_the_model_is_without_its_adapter(models):
    model = LoraModel(models / "tiny-random", rank=2, seed=0, device=CPU, dtype=torch.float32)
    (row,) = pack(
        [replace(one, ids_T=one.ids_T % 90) for one in DOCUMENTS], capacity=1000, device=CPU
    )
    untrained = model.log_probs(row)
    for name, parameter in model.parameters().items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    assert not torch.equal(model.log_probs(row), untrained)
    with model.as_reference():
        torch.testing.assert_close(model.log_probs(row), untrained, rtol=0, atol=0)
    assert not torch.equal(model.log_probs(row), untrained)
