"""The protocol: one router on one split, from its walk to its figures.

The router's forecast front on the whole test part is walked point by point; what each point really
costs and scores is the realised curve, and every figure is read off it. The same figures on
resampled test texts give the intervals.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optllm_router.bench.policies import Asked, asked_of, policy_figures
from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.records import Drawn, Reliability, Run
from optllm_router.bench.routing import BuildRouter, Routed, Terms
from optllm_router.bench.walks import Walk
from optllm_router.core.evaluation import (
    Curve,
    aiq,
    best_single,
    budget_area,
    calibration,
    calibration_by_column,
    cost_forecast,
    max_accuracy,
    overspend,
    qnc,
    reliability,
    saving_at_best,
    saving_crossfit,
)
from optllm_router.core.front.quality import (
    exact_front_of_outcomes,
    hypervolume,
    igd,
    igd_plus,
    normalised,
    spread,
)
from optllm_router.records import Floats, Ints

Counts: TypeAlias = NDArray[np.signedinteger[Any]]  # how often each query counts

MAX_RESAMPLED_POINTS = 1_000
"""Of a longer walk every k-th point and the last are read while test texts are resampled, at most
one more than this."""

MAX_JUDGED_POINTS = 500  # of a front, where every point is compared with every other one
N_DRAWN = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a split's routers are judged by.

    `half` (n_test,) is 0 or 1, by distinct text; `weights` (n_resamples, n_test) says how often
    each query counts in a resample.
    """

    test: Problem
    half: Ints
    weights: Counts


def judged(split: Split, text_weights: Counts) -> Judged:
    """Halve a split's test part by text, and resample it.

    Args:
        split: the split.
        text_weights: how often each distinct text of the whole table counts in each resample,
            (n_resamples, n_texts): the same for every split.
    """
    rng = np.random.default_rng(split.seed)
    _, text = np.unique(split.test.group, return_inverse=True)
    side = rng.permutation(int(text.max()) + 1) % 2
    return Judged(test=split.test, half=side[text], weights=text_weights[:, split.test.group])


def run(name: str, build: BuildRouter, split: Split, terms: Terms, by: Judged) -> Run:
    """Build a router on the labelled part, walk its front on the test part, and judge it."""
    start = time.perf_counter()
    routed = build(split, terms)
    seconds = time.perf_counter() - start
    curve, asked = _curve(routed.walk, by.test), asked_of(routed, split)
    figures = {
        **_headline(routed.walk, by),
        **policy_figures(asked, by.test, np.ones(by.test.n_queries)),
        **_areas(curve, by.test),
        **_front_quality(curve, by.test),
        **_calibration(routed, by.test),
        **_cost_errors(routed, terms, by.test),
    }
    return Run(
        router=name,
        n_labelled=split.labelled.n_queries,
        n_test=by.test.n_queries,
        seed=split.seed,
        figures=figures,
        resampled=_resampled(routed.walk, asked, by),
        drawn=_drawn(curve),
        reliability=_reliability(routed, by.test),
        seconds=seconds,
        note=routed.note,
    )


def _curve(walk: Walk, test: Problem, weights: Counts | None = None, *, thin: int = 1) -> Curve:
    """Realise a walk, with queries that count `weights` times each, every `thin`-th point of it.

    Its points keep the walk's order, hence the forecast is that of the whole test part.
    """
    weight = np.ones(test.n_queries) if weights is None else weights.astype(np.float64)
    cost, score = (
        np.maximum(walk.totals(values * weight[:, None]), 0.0)
        for values in (test.cost_usd, test.scores)
    )
    at = _every(cost.size, thin)
    return Curve(
        forecast_usd=walk.forecast_usd[at],
        cost_usd=cost[at],
        score=np.minimum(score[at] / weight.sum(), 1.0),
    )


def _by_forecast(curve: Curve, forecast_usd: Floats) -> Curve:
    """Order a curve by other forecasts, (n_points,): those for the queries that it realises."""
    forecast = np.maximum(forecast_usd, 0.0)
    order = np.argsort(forecast, kind="stable")
    return replace(
        curve,
        forecast_usd=forecast[order],
        cost_usd=curve.cost_usd[order],
        score=curve.score[order],
    )


def _every(n_points: int, thin: int) -> Ints:
    """Every `thin`-th point from the first on, and the last."""
    at = np.arange(0, n_points, thin)
    return at if at[-1] == n_points - 1 else np.append(at, n_points - 1)


def _headline(
    walk: Walk, by: Judged, weights: Counts | None = None, *, thin: int = 1
) -> dict[str, float]:
    """The walk's figures that have intervals, on the whole test part or a resample of it."""
    test = by.test
    count = np.ones(test.n_queries, dtype=np.int64) if weights is None else weights
    if not count.any():  # a resample without any text of a small test part
        return {}
    best = best_single(test.scores, test.cost_usd, weights=count)
    cheapest = float((count @ test.cost_usd).min())
    curve = _curve(walk, test, count, thin=thin)
    figures = {**_crossfitted(walk, by, count, thin=thin), "max_accuracy": max_accuracy(curve)}
    if best.cost_usd > 0.0:
        figures["saving_at_best"] = saving_at_best(curve, best.score, best.cost_usd)
    if cheapest > 0.0:  # budgets are geometric
        most = best.cost_usd
        figures["budget_area"] = budget_area(curve, cheapest_usd=cheapest, best_cost_usd=most)
        forecast = walk.forecast(count.astype(np.float64))[_every(walk.forecast_usd.size, thin)]
        trusted = _by_forecast(curve, forecast)
        figures["overspend"] = overspend(trusted, cheapest_usd=cheapest, best_cost_usd=most)
    return figures


def _crossfitted(walk: Walk, by: Judged, count: Counts, *, thin: int) -> dict[str, float]:
    """Pick the point on one half of the test texts and read it off on the other, both ways."""
    test = by.test
    halves = [count * (by.half == side) for side in (0, 1)]
    if not all(half.any() for half in halves):
        return {}
    j = best_single(test.scores, test.cost_usd, weights=count).column  # one for both halves
    best = [float(half @ test.scores[:, j]) / int(half.sum()) for half in halves]
    cost = [float(half @ test.cost_usd[:, j]) for half in halves]
    if not min(cost) > 0.0:
        return {}
    found = saving_crossfit(
        *(_curve(walk, test, half, thin=thin) for half in halves),
        best=(best[0], best[1]),
        best_cost_usd=(cost[0], cost[1]),
    )
    return {"saving_crossfit": found.saving, "shortfall_crossfit": found.shortfall}


def _resampled(walk: Walk, asked: Asked, by: Judged) -> dict[str, Floats]:
    """The headline and the policies' figures in every resample, NaN where one is not defined.

    Of long walks about `MAX_RESAMPLED_POINTS` are read.
    """
    thin = -(-walk.forecast_usd.size // MAX_RESAMPLED_POINTS)
    found = []
    for weights in by.weights:
        figures = _headline(walk, by, weights, thin=thin)
        if weights.any():
            figures |= policy_figures(asked, by.test, weights.astype(np.float64))
        found.append(figures)
    names = dict.fromkeys(name for one in found for name in one)
    return {name: np.array([one.get(name, np.nan) for one in found]) for name in names}


def _areas(curve: Curve, test: Problem) -> dict[str, float]:
    """Areas over one range for every router: from the cheapest to the dearest single candidate."""
    best = best_single(test.scores, test.cost_usd)
    total = test.cost_usd.sum(axis=0)
    figures = {"aiq": aiq(curve, low_usd=float(total.min()), high_usd=float(total.max()))}
    if best.cost_usd > 0.0:
        figures["qnc"] = qnc(curve, best.score, best.cost_usd)
    return figures


def _front_quality(curve: Curve, test: Problem) -> dict[str, float]:
    """How far the realised curve is from the exact front of the true outcomes.

    Nothing where that is one point, which gives the axes no unit.
    """
    cost, score = exact_front_of_outcomes(test.scores, test.cost_usd)
    if cost.size < 2:
        return {}
    true = _thinned(np.column_stack([cost, score]))
    points = _thinned(np.column_stack([curve.cost_usd, curve.score]))
    scaled, reference = normalised(points, true), normalised(true, true)
    return {
        "igd": igd(scaled, reference),
        "igd_plus": igd_plus(scaled, reference),
        "hypervolume": hypervolume(scaled),
        "spread": spread(scaled, reference),
    }


def _thinned(points: Floats) -> Floats:
    return points[_every(len(points), -(-len(points) // MAX_JUDGED_POINTS))]


def _calibration(routed: Routed, test: Problem) -> dict[str, float]:
    if routed.prob is None:
        return {}
    pooled = calibration(routed.prob, test.scores)
    each = [one.ece for one in calibration_by_column(routed.prob, test.scores)]
    return {
        "ece": float(np.mean(each)),
        "ece_pooled": pooled.ece,
        "brier": pooled.brier,
        "log_loss": pooled.log_loss,
    }


def _cost_errors(routed: Routed, terms: Terms, test: Problem) -> dict[str, float]:
    if routed.cost_usd is None or terms.oracle_costs:
        return {}
    found = [
        cost_forecast(forecast, cost)
        for forecast, cost in zip(routed.cost_usd.T, test.cost_usd.T, strict=True)
        if cost.sum() > 0.0
    ]
    if not found:
        return {}
    return {
        "cost_error": float(np.mean([one.absolute_total_error for one in found])),
        "cost_error_per_query": float(np.mean([one.mean_absolute_error_usd for one in found])),
    }


def _reliability(routed: Routed, test: Problem) -> tuple[Reliability, ...]:
    """Every candidate's bins and calibration."""
    if routed.prob is None:
        return ()
    return tuple(
        _of_candidate(name, routed.prob[:, j], test.scores[:, j])
        for j, name in enumerate(test.candidates)
    )


def _of_candidate(name: str, prob: Floats, scores: Floats) -> Reliability:
    bins, found = reliability(prob, scores), calibration(prob, scores)
    return Reliability(
        candidate=name,
        prob=bins.prob,
        score=bins.score,
        n=bins.n.astype(np.float64),
        ece=found.ece,
        brier=found.brier,
        log_loss=found.log_loss,
    )


def _drawn(curve: Curve) -> Drawn:
    at = _every(curve.score.size, -(-curve.score.size // N_DRAWN))
    return Drawn(cost_usd=curve.cost_usd[at], score=curve.score[at])
