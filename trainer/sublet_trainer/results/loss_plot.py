"""
The loss curve as an SVG of a few kilobytes, drawn here so that no plotting library is needed: the
loss of each step, and above it the points of the evaluations.
"""

from collections.abc import Sequence
from typing import Final

from sublet_trainer.training import EvalMetrics, StepMetrics

_WIDTH, _HEIGHT, _MARGIN = 720, 360, 48
_MAX_POINTS: Final = 1000
_Point = tuple[float, float]


def loss_plot(metrics: Sequence[StepMetrics], evaluations: Sequence[EvalMetrics]) -> bytes:
    """There is at least one step. Of many, an even choice is drawn."""
    stride = -(-len(metrics) // _MAX_POINTS)
    curve = [(float(one.step), one.loss) for one in metrics[::stride]]
    points = [(float(one.step), one.eval_loss) for one in evaluations]
    axes = _Axes.around([*curve, *points])
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(axes.place, curve))
    circles = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#d62728"/>'
        for x, y in map(axes.place, points)
    )
    legend = '<text x="60" y="24" fill="#1f77b4">loss</text>'
    if points:
        legend += '<text x="110" y="24" fill="#d62728">evaluation</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>{axes.drawn()}{legend}'
        f'<polyline points="{line}" fill="none" stroke="#1f77b4" stroke-width="1.5"/>{circles}'
        "</svg>\n"
    ).encode()


class _Axes:
    def __init__(self, least: _Point, most: _Point) -> None:
        self._least, self._most = least, most

    @classmethod
    def around(cls, points: Sequence[_Point]) -> "_Axes":
        steps, losses = zip(*points, strict=True)
        return cls((min(steps), min(losses)), (max(steps), max(losses)))

    def place(self, point: _Point) -> _Point:
        along = _share(point[0], self._least[0], self._most[0])
        up = _share(point[1], self._least[1], self._most[1])
        x = _MARGIN + along * (_WIDTH - 2 * _MARGIN)
        return x, _HEIGHT - _MARGIN - up * (_HEIGHT - 2 * _MARGIN)

    def drawn(self) -> str:
        low, right = _HEIGHT - _MARGIN, _WIDTH - _MARGIN
        return (
            f'<path d="M{_MARGIN},{_MARGIN}V{low}H{right}" fill="none" stroke="#888"/>'
            f'<text x="4" y="{_MARGIN + 4}">{self._most[1]:.3f}</text>'
            f'<text x="4" y="{low}">{self._least[1]:.3f}</text>'
            f'<text x="{_MARGIN}" y="{low + 18}">step {self._least[0]:.0f}</text>'
            f'<text x="{right}" y="{low + 18}" text-anchor="end">{self._most[0]:.0f}</text>'
        )


def _share(value: float, least: float, most: float) -> float:
    return (value - least) / (most - least) if most > least else 0.5
