"""
What torch.compile makes of a layer for a GPU that is not here, as machine code:

    python layer_programs.py 89

prints the bytes of each kernel by name, for each of a layer's programs. They are traced on the CPU
as the trainer has them traced, lowered as if their tensors were on cuda:0, and compiled by Triton
for that compute capability; nothing is run. What torch asks a GPU's driver meanwhile is answered
here.

Source: https://docs.pytorch.org/docs/stable/torch.compiler_inductor_profiling.html;
torch/_inductor/runtime/triton_heuristics.py (what a worker without a GPU compiles)
"""

import json
import sys
from collections import defaultdict
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import torch
import torch._inductor.runtime.triton_helpers
import torch._inductor.runtime.triton_heuristics as heuristics
import torch._inductor.scheduler
import torch.utils._triton
import triton
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import TracingContext, tracing
from torch._inductor.compile_fx import compile_fx_inner
from torch._inductor.decomposition import select_decomp_table
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from triton.backends.compiler import GPUTarget

from sublet_trainer.compilation import made_up_row
from sublet_trainer.models.adapter import LoraModel
from sublet_trainer.models.compiler import TorchCompiler

GPU = torch.device("cuda", 0)


def main(folder, capability):
    programs = traced(folder)
    answer_for_gpu(capability)
    kernels = defaultdict(dict)
    for name, graph, inputs in programs:
        heuristics.CachingAutotuner.precompile = kept_in(kernels[name])
        compile_for_gpu(graph, inputs, is_backward=name.endswith("backward"))
    print(json.dumps(kernels))


def traced(folder):
    """Each program's graph, and the fake tensors that it was traced with."""
    programs = []

    def keep(name):
        def compiler(graph, inputs):
            programs.append((name, deepcopy(graph), list(inputs)))
            return make_boxed_func(graph.forward)

        return compiler

    class Tracer(TorchCompiler):
        def __call__(self, written):
            name = written.__name__.strip("_")
            self._backend = aot_autograd(
                fw_compiler=keep(f"{name}, forward"),
                bw_compiler=keep(f"{name}, backward"),
                decompositions=select_decomp_table(),
                partition_fn=min_cut_rematerialization_partition,
            )
            return super().__call__(written)

    cpu = torch.device("cpu")
    model = LoraModel(Path(folder), rank=16, seed=0, device=cpu, dtype=torch.bfloat16)
    model.compile_layers(Tracer())
    model.log_probs(made_up_row(300, device=cpu)).sum().backward()
    return programs


def compile_for_gpu(graph, inputs, *, is_backward):
    mode = next(one.fake_mode for one in inputs if isinstance(one, FakeTensor))

    def there(one):
        if not isinstance(one, FakeTensor):
            return one
        return torch.empty_strided(one.size(), one.stride(), dtype=one.dtype, device=GPU)

    with mode:
        inputs = [there(one) for one in inputs]
    for node in graph.graph.nodes:
        if "device" in node.kwargs:
            node.kwargs = {**node.kwargs, "device": GPU}
    graph.recompile()
    FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*inputs)
    with tracing(TracingContext(mode)):
        compile_fx_inner(graph, inputs, is_backward=is_backward)


def kept_in(sizes):
    """Compiles as a worker does: for a GPU that need not be here, and is not loaded to."""

    def precompile(self, *_, **__):
        self._precompile_worker()
        for made in self.compile_results:
            sizes[self.fn.__name__] = Path(made.kernel.cubin_path).stat().st_size

    return precompile


# --- what is asked of a driver --------------------------------------------------------------------


class Driver:
    capability = 0

    @classmethod
    def is_active(cls):
        return True

    def get_current_target(self):
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return 0

    def get_active_torch_device(self):
        return GPU


class WhileOnDevice(nullcontext):
    def __init__(self, *_):
        super().__init__()


def answer_for_gpu(capability):
    Driver.capability = capability
    properties = SimpleNamespace(
        major=capability // 10,
        minor=capability % 10,
        multi_processor_count=100,
        total_memory=24 * 2**30,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=1536,
        max_threads_per_block=1024,
        warp_size=32,
        shared_memory_per_block=48 * 1024,
        shared_memory_per_block_optin=99 * 1024,
        L2_cache_size=48 * 2**20,
        name="a GPU that is not here",
        gcnArchName="",  # of AMD's
    )
    triton.runtime.driver.set_active(Driver())
    torch._inductor.runtime.triton_helpers.set_driver_to_gpu = lambda: None
    for module in (torch.utils._triton, torch._inductor.scheduler):
        module.has_triton = lambda *_: True
    for name, answer in {
        "_lazy_init": None,
        "is_available": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_properties": properties,
        "_get_device_properties": properties,
        "get_device_capability": (properties.major, properties.minor),
        "get_rng_state": torch.get_rng_state(),
        "set_rng_state": None,
    }.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.cuda.device = torch.cuda._DeviceGuard = WhileOnDevice
    torch._C._cuda_getCurrentRawStream = lambda _: 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
