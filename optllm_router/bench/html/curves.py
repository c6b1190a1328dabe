"""One curve per router out of the curves of its seeds, and the points along it in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optllm_router.bench.records import Drawn
from optllm_router.records import Floats

_N_POINTS = 160


def mean_curve(curves: Sequence[Drawn], *, log: bool) -> Drawn:
    """Return the mean of several seeds' curves; of one seed, the curve itself.

    Every curve is cut at the same shares of its own range of cost (of its logarithm when `log`),
    and costs and scores are averaged share by share, so that ends meet ends. Points that are not
    finite are left out; without any point left the curve is empty.
    """
    kept = [curve for curve in map(_finite, curves) if curve.cost_usd.size]
    if len(kept) < 2:
        return kept[0] if kept else Drawn(cost_usd=np.empty(0), score=np.empty(0))
    n_points = 1 if all(np.ptp(curve.cost_usd) == 0 for curve in kept) else _N_POINTS
    cut = np.mean([_cut(curve, n_points=n_points, log=log) for curve in kept], axis=0)
    return Drawn(cost_usd=np.exp(cut[0]) if log else cut[0], score=cut[1])


def spread_along(points: Floats, *, gap: float, first: float) -> Floats:
    """Return points on a polyline, (n, 2), at `first`, `first + gap`, … pixels from its start."""
    steps = np.hypot(*np.diff(points, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    wanted = np.arange(first, along[-1] + 1e-9, gap)
    return np.column_stack([np.interp(wanted, along, axis) for axis in points.T])


def _finite(curve: Drawn) -> Drawn:
    keep = np.isfinite(curve.cost_usd) & np.isfinite(curve.score)
    return Drawn(cost_usd=curve.cost_usd[keep], score=curve.score[keep])


def _cut(curve: Drawn, *, n_points: int, log: bool) -> Floats:
    """Return costs (their logarithms when `log`) and scores at even shares, (2, n_points)."""
    order = np.argsort(curve.cost_usd, kind="stable")
    cost = np.log(curve.cost_usd[order]) if log else curve.cost_usd[order]
    if cost[0] == cost[-1]:
        return np.tile([[cost[0]], [curve.score.mean()]], (1, n_points))
    at = np.linspace(cost[0], cost[-1], n_points)
    return np.stack([at, np.interp(at, cost, curve.score[order])])
