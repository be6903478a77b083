"""
Rows of a step side by side, each on cores of its own. What a model does with a row is thousands of
short operations; where all cores divide each of them, they wait for each other half of the time.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeVar

import torch
from torch import Tensor, nn

R = TypeVar("R")

MAX_AT_ONCE: Final = 8
"""Bounds what is kept for the backward pass to that of so many rows; more cores share a row."""


class Cores:
    """
    Args:
        at_once: how many rows; with one, nothing here has a thread of its own.
    """

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self._count = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(at_once, "row") if at_once > 1 else None

    def each(self, act: Callable[..., R], *arguments: Iterable[Any]) -> list[R]:
        """
        As `map`, in the caller's grad mode. If one raises, the others have ended all the same.
        """
        calls = list(zip(*arguments, strict=True))
        if self._threads is None or len(calls) == 1:
            return [act(*call) for call in calls]
        has_grad, num_threads = torch.is_grad_enabled(), max(1, self._count // len(calls))

        def run(*call: Any) -> R:  # noqa: ANN401  whatever `act` takes
            torch.set_num_threads(num_threads)  # this thread's own
            with torch.set_grad_enabled(has_grad):
                return act(*call)

        running: list[Future[R]] = [self._threads.submit(run, *call) for call in calls]
        wait(running)
        return [one.result() for one in running]

    def backward(self, losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> None:
        """
        Add the losses' gradients to those of the parameters, in the order of the losses, whichever
        is ready first: equal steps have equal gradients to the bit.
        """
        if len(losses) == 1:
            torch.autograd.backward(losses)
            return
        for gradients in self.each(lambda loss: torch.autograd.grad(loss, parameters), losses):
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if parameter.grad is None:
                    parameter.grad = gradient
                else:
                    parameter.grad += gradient
