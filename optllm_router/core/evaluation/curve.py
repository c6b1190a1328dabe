"""The realised curve of a walk along a predicted front, and what it saves.

A router predicts a front and is asked for each of its points in turn. What the points then truly
cost and score is the realised curve; it need not be monotone, and none of its points was chosen
with knowledge of the outcomes. Comparisons of scores and of budgets allow for `TOLERANCE`, because
the same outcomes added up in another order differ in their last bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.evaluation.checks import (
    outcomes,
    require_positive,
    require_range,
    same_shape,
)
from optllm_router.core.front import TOLERANCE
from optllm_router.records import Bools, Floats, Ints

N_BUDGETS = 40
SHORTFALL = 0.005


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """The points of one walk in its order, by ascending forecast cost, (n_points,) each.

    `forecast_usd` is the total cost that the router forecast, `cost_usd` the total that the point
    realised, both in USD, `score` its realised mean score in [0, 1].

    Raises:
        ValueError: No point, shapes that differ, a value out of range, or a walk that goes back to
            a cheaper forecast.
    """

    forecast_usd: Floats
    cost_usd: Floats
    score: Floats

    def __post_init__(self) -> None:
        if self.score.ndim != 1 or not self.score.size:
            raise ValueError(
                f"`score` has shape {self.score.shape}, but a curve needs at least one point, "
                "(n_points,): walk the front from its first point."
            )
        same_shape(("score", self.score), forecast_usd=self.forecast_usd, cost_usd=self.cost_usd)
        require_range("forecast_usd", self.forecast_usd)
        require_range("cost_usd", self.cost_usd)
        require_range("score", self.score, upper=1.0)
        back = np.flatnonzero(np.diff(self.forecast_usd) < 0.0)
        if back.size:
            raise ValueError(
                f"`forecast_usd` falls from point {back[0]} to the next, but a walk goes from the "
                "cheapest forecast to the dearest: sort the points by forecast cost."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BestSingle:
    """The best single candidate: its `column`, mean `score`, and total `cost_usd` in USD."""

    column: int
    score: float
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossfitSaving:
    """What a point chosen on other queries saves, and how far it falls short of the best score.

    `shortfall` is negative where the point scores better than the best candidate.
    """

    saving: float
    shortfall: float


def best_single(
    scores: ArrayLike, cost_usd: ArrayLike, *, weights: ArrayLike | None = None
) -> BestSingle:
    """Return the candidate of the highest mean score; ties go to the cheaper, then the first.

    Args:
        scores: true scores in [0, 1], (n_queries, n_columns), each observed.
        cost_usd: true costs in USD, (n_queries, n_columns).
        weights: how often each query counts, (n_queries,), as from `bootstrap_weights`; None
            counts each once.

    Raises:
        ValueError: Shapes that differ, no cell, a value out of range, no positive weight.
    """
    score, cost = outcomes(scores, cost_usd)
    weight = np.ones(len(score)) if weights is None else np.asarray(weights, dtype=np.float64)
    same_shape(("scores[:, 0]", score[:, 0]), weights=weight)
    require_range("weights", weight)
    require_positive("weights.sum()", float(weight.sum()))
    mean, total = weight @ score / weight.sum(), weight @ cost
    best = int(np.lexsort((total, -mean))[0])
    return BestSingle(column=best, score=float(mean[best]), cost_usd=float(total[best]))


def saving_at_best(curve: Curve, best: float, best_cost_usd: float) -> float:
    """Return the share of the best candidate's cost that reaching its score saves, in hindsight.

    1 - (least realised cost among points of score >= best) / best_cost_usd: the saving of OptLLM
    (Liu et al., ICWS 2024, Table II). 0 when no point reaches it; negative when the cheapest that
    does costs more than the candidate. Optimistic, since the point is picked knowing the outcomes.

    Args:
        curve: the realised curve.
        best: mean score of the best single candidate on the same queries.
        best_cost_usd: its total cost in USD.

    Raises:
        ValueError: A cost that is not above 0.
    """
    require_positive("best_cost_usd", best_cost_usd)
    reached = _reaches(curve, best)
    if not reached.any():
        return 0.0
    return 1.0 - float(curve.cost_usd[reached].min()) / best_cost_usd


def saving_crossfit(
    half_a: Curve,
    half_b: Curve,
    *,
    best: tuple[float, float],
    best_cost_usd: tuple[float, float],
    tolerance: float = SHORTFALL,
) -> CrossfitSaving:
    """Return what the point saves that the other half of the queries would pick, both ways.

    On one half pick the point of least realised cost (of a tie the first of the walk) with a score
    of at least best - `tolerance`; on the other half report 1 - cost / best_cost_usd and best -
    score of that same point. Average the two ways. A way in which the picking half never gets
    there counts 0 and 0: one would call the best candidate. Two-fold cross-validation of the choice
    of a point (Stone, Journal of the Royal Statistical Society B 36(2), 1974).

    Args:
        half_a: the walk realised on the first half; halves share no text.
        half_b: the same walk, point for point, on the second half.
        best: mean score on each half of the best single candidate of both halves together. One and
            the same for both: where two candidates are close, a best of each half would compare
            the two ways with different costs.
        best_cost_usd: its total cost in USD on each half.
        tolerance: how far below the best score a picked point may be.

    Raises:
        ValueError: Curves of different walks, a cost that is not above 0.
    """
    same_shape(("half_a.score", half_a.score), **{"half_b.score": half_b.score})
    a = _Half(curve=half_a, best=best[0], best_cost_usd=best_cost_usd[0])
    b = _Half(curve=half_b, best=best[1], best_cost_usd=best_cost_usd[1])
    there, back = _crossed(a, b, tolerance), _crossed(b, a, tolerance)
    return CrossfitSaving(
        saving=(there.saving + back.saving) / 2, shortfall=(there.shortfall + back.shortfall) / 2
    )


def max_accuracy(curve: Curve) -> float:
    """Return the highest realised score on the curve, also called peak accuracy."""
    return float(curve.score.max())


def budget_area(
    curve: Curve, *, cheapest_usd: float, best_cost_usd: float, n_budgets: int = N_BUDGETS
) -> float:
    """Return the mean score over budgets that run from the cheapest candidate to the best one.

    The budgets are geometric, both ends included. Each buys the score of the point of the highest
    *realised* cost within it (of a tie the last of the walk). A budget b below the least realised
    cost c pays for a share of the queries only and gets that point's score times b / c.

    Args:
        curve: the realised curve.
        cheapest_usd: total cost of the cheapest single candidate in USD.
        best_cost_usd: total cost of the best single candidate in USD.
        n_budgets: how many budgets, at least 1 (one is the cheapest).

    Raises:
        ValueError: A cost that is not above 0, no budget.
    """
    budgets = _budgets(cheapest_usd, best_cost_usd, n_budgets)
    by_cost = np.argsort(curve.cost_usd, kind="stable")
    cost, score = curve.cost_usd[by_cost], curve.score[by_cost]
    point = _last_within(cost, budgets)
    return float(np.mean(score[np.maximum(point, 0)] * _share_paid(cost, budgets, point)))


def overspend(
    curve: Curve, *, cheapest_usd: float, best_cost_usd: float, n_budgets: int = N_BUDGETS
) -> float:
    """Return by how much the budgets of `budget_area` are overrun when forecasts are trusted.

    The mean of max(0, realised / budget - 1) at the last point whose *forecast* is within the
    budget; forecasts that turn out too high do not make up for others. A budget b below the first
    forecast f pays, as in `budget_area`, for a share b / f of the queries.

    Args:
        curve: the realised curve.
        cheapest_usd: total cost of the cheapest single candidate in USD.
        best_cost_usd: total cost of the best single candidate in USD.
        n_budgets: how many budgets, at least 1.

    Raises:
        ValueError: A cost that is not above 0, no budget.
    """
    budgets = _budgets(cheapest_usd, best_cost_usd, n_budgets)
    point = _last_within(curve.forecast_usd, budgets)
    share = _share_paid(curve.forecast_usd, budgets, point)
    realised = curve.cost_usd[np.maximum(point, 0)] * share
    return float(np.mean(np.maximum(realised / budgets - 1.0, 0.0)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Half:
    curve: Curve
    best: float
    best_cost_usd: float


def _crossed(picking: _Half, reporting: _Half, tolerance: float) -> CrossfitSaving:
    require_positive("best_cost_usd", reporting.best_cost_usd)
    reached = _reaches(picking.curve, picking.best - tolerance)
    if not reached.any():
        return CrossfitSaving(saving=0.0, shortfall=0.0)
    point = int(np.where(reached, picking.curve.cost_usd, np.inf).argmin())
    return CrossfitSaving(
        saving=1.0 - float(reporting.curve.cost_usd[point]) / reporting.best_cost_usd,
        shortfall=reporting.best - float(reporting.curve.score[point]),
    )


def _reaches(curve: Curve, score: float) -> Bools:
    reached: Bools = curve.score >= score - TOLERANCE
    return reached


def _budgets(cheapest_usd: float, best_cost_usd: float, n_budgets: int) -> Floats:
    require_positive("cheapest_usd", cheapest_usd)
    require_positive("best_cost_usd", best_cost_usd)
    if n_budgets < 1:
        raise ValueError(f"`n_budgets` is {n_budgets}, but at least one is needed: 40 is usual.")
    return np.geomspace(cheapest_usd, best_cost_usd, n_budgets)


def _last_within(cost: Floats, budgets: Floats) -> Ints:
    """Return the last of ascending costs within each budget, -1 where none is."""
    within = np.searchsorted(cost, budgets * (1.0 + TOLERANCE), side="right")
    return within.astype(np.int64) - 1


def _share_paid(cost: Floats, budgets: Floats, point: Ints) -> Floats:
    """Return which share of the queries each budget pays for: all, unless no point is within."""
    share = np.ones(budgets.size)
    below = point < 0
    share[below] = budgets[below] / cost[0]
    return share
