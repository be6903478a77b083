"""
The metrics of a training as JSON lines: a step has `loss`, an evaluation `eval_loss`. While it
runs they are streamed to the owner in numbered objects, since Cloud Storage appends to nothing and
the job's token can overwrite nothing; in the end they lie whole beside the adapter.

    gcloud storage cat "gs://BUCKET/PREFIX/metrics/epoch-1/*"
"""

from collections.abc import Sequence
from time import monotonic
from typing import Final

from sublet.codec import encode
from sublet_trainer.leased.output import Output
from sublet_trainer.training import EvalMetrics, StepMetrics, TrainingState

STREAM_EVERY_S: Final = 30.0


def metrics_lines(metrics: Sequence[StepMetrics], evaluations: Sequence[EvalMetrics]) -> bytes:
    """In the order of steps, a step before the evaluation that follows it."""
    steps = [(one.step, 0, one) for one in metrics]
    evaluated = [(one.step, 1, one) for one in evaluations]
    ordered = sorted([*steps, *evaluated], key=lambda one: one[:2])
    return b"".join(encode(one) + b"\n" for _, _, one in ordered)


class MetricsStream:
    """Of one holder of the lease: what it has done itself since the last part."""

    def __init__(self, output: Output, state: TrainingState, *, epoch: int) -> None:
        self._output = output
        self._state = state
        self._folder = f"metrics/epoch-{epoch}/"
        self._num_parts = 0
        self._num_steps, self._num_evaluations = len(state.metrics), len(state.evaluations)
        self._written_at = monotonic()

    def write_if_due(self) -> None:
        """
        Raises:
            AccessDenied, TryAgain: as Output.create().
        """
        if monotonic() - self._written_at < STREAM_EVERY_S:
            return
        state = self._state
        content = metrics_lines(
            state.metrics[self._num_steps :], state.evaluations[self._num_evaluations :]
        )
        self._num_parts += 1
        name = f"{self._folder}part-{self._num_parts:05d}.jsonl"
        self._output.create(name, content, "application/jsonl")
        self._num_steps, self._num_evaluations = len(state.metrics), len(state.evaluations)
        self._written_at = monotonic()
