"""One chart's plot: where its box lies in the SVG, and which pixels stand for which values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optllm_router.bench.html.drawing import Named
from optllm_router.bench.html.fronts import Window
from optllm_router.bench.html.labels import Box
from optllm_router.bench.html.scales import Scale
from optllm_router.bench.records import Drawn, Single
from optllm_router.records import Floats

NARROW_UP_TO = 600.0
"""Up to this width in its own pixels a chart has no labels beside its curves, only a legend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """One SVG's plot: its box and scales in pixels, and the words that name it."""

    named: Named
    box: Box
    width: float
    window: Window
    x: Scale
    y: Scale

    @property
    def is_wide(self) -> bool:
        """Whether there is room for labels beside the curves."""
        return self.width > NARROW_UP_TO

    def points(self, curve: Drawn) -> Floats:
        """Return a curve's points in pixels, (n_points, 2)."""
        return np.column_stack([self.x(curve.cost_usd), self.y(curve.score)])

    def point(self, single: Single) -> tuple[float, float]:
        """Return a candidate's point in pixels."""
        return self.x.at(single.cost_usd), self.y.at(single.score)

    def holds(self, point: tuple[float, float]) -> bool:
        """Tell whether a point in pixels is within the plot."""
        x, y = point
        return self.box.left <= x <= self.box.right and self.box.top <= y <= self.box.bottom
