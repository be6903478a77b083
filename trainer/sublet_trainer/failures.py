"""
What a user is told when a step cannot be taken: which rows, by their lines, never by their words,
and which setting to change to what.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from typing import ClassVar, Final

import torch

from sublet.errors import InvalidRequest, SubletError
from sublet.jobs import TrainingSettings
from sublet_trainer.data.packing import PackedRow

LINES_NAMED: Final = 20
_CPU_REFUSAL: Final = "DefaultCPUAllocator"
"""torch has an OutOfMemoryError for GPUs, and for the CPU a RuntimeError that begins with this."""


class OutOfMemory(SubletError):
    """Raised when a row does not fit beside the base model; says how long one may be."""

    status: ClassVar[int] = 429
    reason: ClassVar[str] = "RESOURCE_EXHAUSTED"


@contextmanager
def naming_what_to_lower(rows: Sequence[PackedRow], settings: TrainingSettings) -> Iterator[None]:
    """
    Raises:
        OutOfMemory: instead of what torch or Python raises within it when memory is refused.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as problem:
        is_refusal = isinstance(problem, MemoryError | torch.OutOfMemoryError)
        if not (is_refusal or _CPU_REFUSAL in str(problem)):
            raise
        row = max(rows, key=lambda row: row.num_tokens)
        fitting = max(16, min(row.num_tokens, settings.max_context_length) // 2)
        beside = f", beside {len(rows) - 1} more" if len(rows) > 1 else ""
        raise OutOfMemory(
            f"a row of {row.num_tokens} tokens, {row.num_documents} documents{beside}, does not "
            f"fit in memory with the base model; lower max_context_length from "
            f"{settings.max_context_length} to {fitting}, or train on a machine with more memory"
        ) from None


def verify_finite(loss: float, grad_norm: float, step: int, lines: Sequence[int]) -> None:
    """
    Args:
        lines: those of the step's rows, in order.

    Raises:
        InvalidRequest: the loss or its gradient is no number any more.
    """
    if isfinite(loss) and isfinite(grad_norm):
        return
    named = ", ".join(str(line) for line in lines[:LINES_NAMED])
    more = f" and {len(lines) - LINES_NAMED} more" if len(lines) > LINES_NAMED else ""
    raise InvalidRequest(
        f"at step {step}, on lines {named}{more}, the loss is {loss} and its gradient's norm "
        f"{grad_norm}; expected finite numbers: lower learning_rate, or check the rows' weights"
    )
