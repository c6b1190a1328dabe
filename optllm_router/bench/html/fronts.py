"""What the chart of realised fronts shows: a curve per router, the candidates, and the windows.

Weak candidates and the oracle stretch the axes until the routers' curves lie on one another; then
there is a second window, on the routers alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.html.curves import mean_curve
from optllm_router.bench.html.looks import ORACLE
from optllm_router.bench.html.scales import extent, wants_log
from optllm_router.bench.records import Drawn, Report, Single

_CLOSE_UP_BELOW = 0.5
"""Routers whose curves take less than this share of the height get a window of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fronts:
    """A curve per router and the candidates, all on the test parts and means over seeds."""

    n_labelled: int
    n_test: int | None
    n_seeds: int
    curves: Mapping[str, Drawn]
    singles: tuple[Single, ...]
    log: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The range of costs in USD and of mean scores that a chart shows."""

    cost_usd: tuple[float, float]
    score: tuple[float, float]

    def holds(self, single: Single) -> bool:
        """Tell whether a candidate's point is within the window."""
        is_there = self.cost_usd[0] <= single.cost_usd <= self.cost_usd[1]
        return is_there and self.score[0] <= single.score <= self.score[1]


def fronts_of(report: Report, n_labelled: int) -> Fronts:
    """Return what is drawn for one number of labels: candidates as they are on its test parts."""
    singles = tuple(
        each
        for each in report.test_singles.get(n_labelled, ())
        if np.isfinite(each.score) and np.isfinite(each.cost_usd)
    )
    drawn: dict[str, list[Drawn]] = {}
    for run in report.runs:
        if run.n_labelled == n_labelled:
            drawn.setdefault(run.router, []).append(run.drawn)
    every = (curve.cost_usd for curves in drawn.values() for curve in curves)
    log = wants_log(np.concatenate([[single.cost_usd for single in singles], *every]))
    curves = {router: mean_curve(each, log=log) for router, each in drawn.items()}
    return Fronts(
        n_labelled=n_labelled,
        n_test=report.n_test.get(n_labelled),
        n_seeds=max((len(each) for each in drawn.values()), default=report.n_seeds),
        curves={router: curve for router, curve in curves.items() if curve.cost_usd.size},
        singles=singles,
        log=log,
    )


def whole_window(fronts: Fronts) -> Window:
    """Return the window that holds every curve and every candidate."""
    return _around(fronts.curves.values(), fronts.singles, log=fronts.log)


def close_up(fronts: Fronts) -> Window | None:
    """Return the window on the curves without the oracle's; None where they are seen well."""
    curves = [curve for router, curve in fronts.curves.items() if router != ORACLE]
    if not any(curve.cost_usd.size > 1 for curve in curves):
        return None
    window, whole = _around(curves, (), log=fronts.log), whole_window(fronts)
    is_squeezed = np.ptp(window.score) < _CLOSE_UP_BELOW * np.ptp(whole.score)
    return window if is_squeezed else None


def _around(curves: Iterable[Drawn], singles: Iterable[Single], *, log: bool) -> Window:
    points = [(curve.cost_usd, curve.score) for curve in curves]
    points += [(np.array([each.cost_usd]), np.array([each.score])) for each in singles]
    costs, scores = zip(*points, strict=True) if points else ((), ())
    return Window(
        cost_usd=extent(np.concatenate([*costs, np.empty(0)]), log=log),
        score=extent(np.concatenate([*scores, np.empty(0)])),
    )
