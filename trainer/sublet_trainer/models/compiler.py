"""
torch.compile as the trainer uses it: a function of a layer becomes one program for rows of every
length and for every layer, or nothing, since a program in pieces gains nothing here.

Source: https://docs.pytorch.org/docs/stable/generated/torch.compile.html
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir
from typing import ParamSpec, Protocol, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Compiler(Protocol):
    def __call__(self, written: Callable[P, R]) -> Callable[P, R]:
        """What computes the same; it is made when it is called first, in tens of seconds."""

    def settle(self) -> None:
        """From now on, what would have to be made anew is computed as it is written."""


class TorchCompiler:
    """
    Args:
        backend: what makes the program; torch's own writes Triton for a GPU and C++ for a CPU. The
            latter needs a C++ compiler, the former none in an image of trainer/Dockerfile.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self._backend = backend

    def __call__(self, written: Callable[P, R]) -> Callable[P, R]:
        import torch._inductor.config as inductor  # noqa: PLC0415  only where there is a compilation

        inductor.compile_threads = 1  # else so many processes, which stay, each with torch in it
        if find_spec("triton"):
            _prepare_triton()
        return torch.compile(written, backend=self._backend, fullgraph=True, dynamic=True)

    def settle(self) -> None:
        torch.compiler.set_stance("eager_on_recompile")


def _prepare_triton() -> None:
    """A home it may write to, and what it would compile in C (trainer/triton_driver.py)."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(Path(gettempdir(), "triton-cache")))
    from triton import knobs  # noqa: PLC0415  it comes with a torch for GPUs
    from triton.backends import nvidia  # noqa: PLC0415

    built = Path(nvidia.__file__).with_name("cuda_utils.so")
    if built.is_file():
        knobs.build.impl = lambda *_: str(built)
