"""The areas and ratios by which other work on routing sums up a realised curve: AIQ, AUDC, QNC.

The two areas join points by lines, which are reached by routing a share of the queries one way and
the rest another. Peak accuracy, the fourth of these figures, is `max_accuracy`.
"""

from __future__ import annotations

import numpy as np

from optllm_router.core.evaluation.checks import require_positive
from optllm_router.core.evaluation.curve import Curve, saving_at_best
from optllm_router.records import Floats


def aiq(curve: Curve, *, low_usd: float | None = None, high_usd: float | None = None) -> float:
    """Return the average improvement in quality: the mean height of the non-decreasing upper hull.

    AIQ = 1 / (c_max - c_min) * integral of R(c) dc from c_min to c_max, with R the upper convex
    hull of the realised points, flat from its highest point on (RouterBench: Hu et al., arXiv
    2403.12031, section 3). Its released code divides by c_max instead, which this does not.

    Below the first point R is not defined; there it follows the line from no cost and score 0, our
    choice, as in `audc`: the money pays for a share of the queries.

    Args:
        curve: the realised curve.
        low_usd: c_min; None is the curve's least realised cost. To compare routers, give them all
            the same range.
        high_usd: c_max, at least c_min; None is the curve's highest realised cost. A range of no
            width has the height at that cost.

    Raises:
        ValueError: A range that starts below 0 or ends before it starts.
    """
    cost, score = _upper_hull(curve)
    low = float(cost[0]) if low_usd is None else low_usd
    high = float(curve.cost_usd.max()) if high_usd is None else high_usd
    if not 0.0 <= low <= high:
        raise ValueError(
            f"the range from `low_usd` {low!r} to `high_usd` {high!r} must start at or above 0 and "
            "not end before it starts: take the costs of the cheapest and the dearest candidate."
        )
    if cost[0] > 0.0:
        cost, score = np.append(0.0, cost), np.append(0.0, score)
    return _mean_height(cost, score, low, high)


def audc(curve: Curve, dearest_usd: float) -> float:
    """Return the area under the deferral curve over the cost relative to the dearest candidate.

    The integral of the realised score over cost / dearest_usd from 0 to 1 (Jitkrittum et al., arXiv
    2502.08773, section 7), straight between the points by realised cost (of equal costs the best
    score stays) and flat after the dearest. Below the first point it follows the line from no cost
    and score 0, our choice: the money pays for a share of the queries.

    Args:
        curve: the realised curve; points beyond `dearest_usd` count up to it.
        dearest_usd: total cost of the dearest single candidate in USD.

    Raises:
        ValueError: A cost that is not above 0.
    """
    require_positive("dearest_usd", dearest_usd)
    cost, score = np.append(0.0, curve.cost_usd), np.append(0.0, curve.score)
    by_cost = np.lexsort((-score, cost))
    cost, first = np.unique(cost[by_cost], return_index=True)
    return _mean_height(cost / dearest_usd, score[by_cost][first], 0.0, 1.0)


def qnc(curve: Curve, best: float, best_cost_usd: float) -> float:
    """Return the quality-neutral cost: the least relative cost of matching the best candidate.

    (Least realised cost among points of score >= best) / best_cost_usd (Jitkrittum et al., arXiv
    2502.08773, section 7); 1 when no point matches, because calling that candidate costs as much.
    So it is 1 - `saving_at_best`, and as optimistic.

    Args:
        curve: the realised curve.
        best: mean score of the best single candidate on the same queries.
        best_cost_usd: its total cost in USD.

    Raises:
        ValueError: A cost that is not above 0.
    """
    return 1.0 - saving_at_best(curve, best, best_cost_usd)


def _upper_hull(curve: Curve) -> tuple[Floats, Floats]:
    """Return the vertices of the upper-left hull by cost, up to the highest score."""
    hull: list[tuple[float, float]] = []
    for k in np.lexsort((-curve.score, curve.cost_usd)):
        point = float(curve.cost_usd[k]), float(curve.score[k])
        if hull and point[1] <= hull[-1][1]:
            continue
        while len(hull) > 1 and not _turns_right(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    cost, score = np.array(hull).T
    return cost, score


def _turns_right(
    first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]
) -> bool:
    rise, run = second[1] - first[1], second[0] - first[0]
    return rise * (third[0] - first[0]) > (third[1] - first[1]) * run


def _mean_height(cost: Floats, score: Floats, low: float, high: float) -> float:
    """Return the mean over [low, high] of the line through points by ascending cost."""
    ends = np.interp([low, high], cost, score)
    if high <= low:
        return float(ends[0])
    inside = (cost > low) & (cost < high)
    xs = np.concatenate(([low], cost[inside], [high]))
    ys = np.concatenate((ends[:1], score[inside], ends[1:]))
    return float(np.trapezoid(ys, xs) / (high - low))
