"""What a training asks of its model, be it an adapter around a frozen base or full weights."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor, nn

from sublet.names import ModelName
from sublet_trainer.data.packing import PackedRow
from sublet_trainer.models.compiler import Compiler


class Model(Protocol):
    """Every rank has one, and makes the same calls in the same order."""

    @property
    def device(self) -> torch.device: ...

    @property
    def max_positions(self) -> int: ...

    @property
    def num_parameters(self) -> int:
        """Of the base model."""

    @property
    def is_split(self) -> bool:
        """Whether each rank holds pieces of it, so that one alone can neither run nor save it."""

    @property
    def target_modules(self) -> tuple[str, ...]: ...

    @property
    def is_compilable(self) -> bool:
        """Whether its layers can be computed by what a compiler makes of them."""

    @property
    def is_compiled(self) -> bool: ...

    def compile_layers(self, compiler: Compiler | None) -> None:
        """Where gradients are wanted, compute the layers so; None: as they are written."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What is trained, by the names in the files that are written."""

    def begin_step(self, step: int) -> None: ...

    def continue_from(self, content: bytes) -> None: ...

    def put(self, values: Mapping[str, Tensor]) -> None: ...

    def copied(self) -> dict[str, Tensor]: ...

    def log_probs(
        self, row: PackedRow, *, recomputes: bool = False, entropy_S: Tensor | None = None
    ) -> Tensor:
        """The log-probability of each supervised token of a row, in nats; fp32 (S,)."""

    def evaluating(self) -> AbstractContextManager[None]: ...

    def as_reference(self) -> AbstractContextManager[None]:
        """Within it the model is what training started from."""

    def each_file(self, base_model: ModelName) -> Iterable[tuple[str, bytes | bytearray]]:
        """Name and content of each, made one at a time."""
