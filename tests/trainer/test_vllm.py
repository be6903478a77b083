"""
vLLM's own LoRA loader, unmodified, on what the trainer wrote: its checks, its names, and what each
of its layers computes, on the CPU. Its attention is compiled, so no whole answer is asked for.

vLLM is no dependency, for its wheels are gigabytes of CUDA. `make adapters-in-vllm` makes an
environment for it, of its Python alone, and runs this.

Source: https://docs.vllm.ai/en/latest/features/lora.html
"""

import re
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pytest
import torch
from near import assert_near
from references import AutoConfig, AutoModelForCausalLM
from safetensors.torch import load_file
from torch import Tensor

from sublet.names import ModelName
from sublet_trainer.models.adapter import TENSORS, LoraModel

pytestmark = pytest.mark.skipif(
    find_spec("vllm") is None, reason="vllm is not installed: make adapters-in-vllm"
)

CPU = torch.device("cpu")
BASE = ModelName.parse("accounts/fireworks/models/base")
NUM_TOKENS = 5
MAX_RANK = 16  # vLLM's default
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 96,
    "max_position_embeddings": 256,
}
FAMILIES = {
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3"},
    "gemma": {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"},
    "phi3": {"model_type": "phi3", "pad_token_id": 0, "sliding_window": None},
}
TARGETS = {"phi3": ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")}


class Worker:
    """The part of a vLLM server that holds a model and puts adapters around its layers."""

    _requests = count(1)

    def __init__(self, base: Path) -> None:
        from vllm.config import LoRAConfig, ModelConfig, VllmConfig, set_current_vllm_config
        from vllm.distributed import ensure_model_parallel_initialized
        from vllm.lora.worker_manager import WorkerLoRAManager
        from vllm.model_executor.model_loader import get_model

        config = VllmConfig(
            model_config=ModelConfig(
                model=str(base), dtype="float32", enforce_eager=True, skip_tokenizer_init=True
            ),
            lora_config=LoRAConfig(max_lora_rank=MAX_RANK),
        )
        with set_current_vllm_config(config):
            ensure_model_parallel_initialized(1, 1)
            model = get_model(vllm_config=config)
            self._manager = WorkerLoRAManager(config, CPU, model.embedding_modules)
            self._manager.create_lora_manager(model, config)

    def serve(self, adapter: Path) -> None:
        """The next tokens are of requests for this adapter, and it is the only one."""
        from vllm.lora.layers import LoRAMapping
        from vllm.lora.request import LoRARequest

        request = LoRARequest("tuned", next(self._requests), str(adapter))
        mapping = LoRAMapping((request.lora_int_id,) * NUM_TOKENS, (request.lora_int_id,), True)  # noqa: FBT003
        self._manager.set_active_adapters({request}, mapping)

    def outputs(self) -> dict[str, Tensor]:
        """Of each linear layer, by the path that it has where vLLM has not put several into one."""
        manager, found = self._manager._adapter_manager, {}
        for path, layer in manager.modules.items():
            if path.endswith(("embed_tokens", "lm_head")):
                continue
            parent, _, name = path.rpartition(".")
            parts = [f"{parent}.{one}" for one in manager.packed_modules_mapping.get(name, [name])]
            together, _ = layer(x_of(layer.input_size))
            found |= zip(parts, together.split(layer.output_slices, dim=-1), strict=True)
        return found


def x_of(width: int) -> Tensor:
    """What goes into a layer; the same for all that are so wide."""
    return torch.randn(NUM_TOKENS, width, generator=torch.Generator().manual_seed(width))


@pytest.fixture(scope="module")
def on_the_cpu(tmp_path_factory):
    """What vLLM's own runner for the CPU sets up, without the compiled part of it."""
    scratch = tmp_path_factory.mktemp("vllm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_TARGET_DEVICE", "cpu")
        patch.setenv("VLLM_CACHE_ROOT", str(scratch / "cache"))
        patch.setenv("VLLM_NO_USAGE_STATS", "1")
        patch.setattr(torch.accelerator, "empty_cache", lambda: None)
        from vllm import distributed

        meeting = f"file://{scratch}/meeting"
        distributed.init_distributed_environment(1, 0, meeting, 0, "gloo")
        yield
        distributed.cleanup_dist_env_and_memory()


@pytest.fixture(scope="module")
def worker(on_the_cpu, folder):
    return Worker(folder)


@pytest.fixture
def of_a_family(tmp_path):
    """A base model of transformers' making, by its name in FAMILIES."""

    def make(family: str) -> Path:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**SIZES, **FAMILIES[family]))
        model.save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    return make


def outputs_of(model: LoraModel) -> dict[str, Tensor]:
    """The trainer's own, of each linear layer by its path."""
    return {path: one(x_of(one.weight.shape[1])) for path, one in model.base.linears().items()}


def assert_is_served(model: LoraModel, worker: Worker) -> None:
    """In all layers, and the adapted ones are far enough from the base model's to tell."""
    with model.as_reference():
        bare = outputs_of(model)
    with model.evaluating():
        tuned = outputs_of(model)
    served = worker.outputs()
    assert_near(served, tuned, within=1e-5)
    for path, output in bare.items():
        has_moved = (served[path] - output).norm() > 0.01 * output.norm()
        assert has_moved == path.endswith(model.target_modules), path


# --- what a job hands over ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"lora_alpha": 12, "use_rslora": True},
        {"lora_dropout": 0.3},
        {"target_modules": ("down_proj", "v_proj")},
        {"lora_rank": MAX_RANK},
    ],
    ids=["plain", "rslora", "dropout", "some layers", "largest rank"],
)
def test_vllm_computes_in_every_layer_what_was_trained(world, worker, folder, tmp_path, variant):
    world.settings = replace(world.settings, learning_rate=1e-2, **variant)
    assert world.train() == 0
    worker.serve(world.download(tmp_path))
    model = LoraModel.of(folder, world.settings, device=CPU, dtype=torch.float32)
    model.put(load_file(tmp_path / TENSORS))
    assert_is_served(model, worker)


def test_vllm_refuses_a_dora_adapter_as_its_card_says(world, worker, tmp_path):
    """Once this fails, what we say of DoRA is out of date."""
    world.settings = replace(world.settings, use_dora=True, epochs=1)
    assert world.train() == 0
    with pytest.raises(ValueError, match=r"^vLLM does not yet support DoRA\.$"):
        worker.serve(world.download(tmp_path))


@pytest.mark.parametrize("rank", [17, 32, 33, 64])
def test_vllm_takes_a_large_rank_when_it_is_started_as_the_card_says(world, worker, tmp_path, rank):
    """--max-lora-rank has a list of values, of which few are ranks that people train."""
    from vllm.config import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    world.settings = replace(world.settings, lora_rank=rank, epochs=1)
    assert world.train() == 0
    adapter = world.download(tmp_path)
    with pytest.raises(ValueError, match=f"LoRA rank {rank} is greater than max_lora_rank 16"):
        worker.serve(adapter)
    said = re.search(r"--max-lora-rank (\d+)", (adapter / "README.md").read_text())
    started = LoRAConfig(max_lora_rank=int(said[1]))
    PEFTHelper.from_local_dir(str(adapter), None).validate_legal(started)


# --- around other models --------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_vllm_finds_the_layers_of_other_models_by_our_names(
    on_the_cpu, of_a_family, tmp_path, family
):
    base = of_a_family(family)
    shape = {"rank": 4, "target_modules": TARGETS.get(family, ())}
    model = LoraModel(base, **shape, seed=0, device=CPU, dtype=torch.float32)
    for parameter in model.parameters().values():
        parameter.data += 0.05 * torch.randn_like(parameter)
    for name, content in model.files(BASE).items():
        (tmp_path / name).write_bytes(content)
    worker = Worker(base)
    worker.serve(tmp_path)
    assert_is_served(model, worker)
