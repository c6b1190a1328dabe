"""The protocol: one router on one split, from its walk to its figures.

The router's forecast front on the whole test part is walked point by point; what each point really
costs and scores is the realised curve, and every figure is read off it. The same figures on
resampled test texts give the intervals.
"""

from __future__ import annotations

import time

import numpy as np

from optllm_router.bench.policies import Asked, asked_of, policy_figures
from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.realised import Counts, Judged, Realised, every, realised, resampled
from optllm_router.bench.records import Drawn, Reliability, Run
from optllm_router.bench.routing import BuildRouter, Routed, Terms
from optllm_router.bench.walks import Walk
from optllm_router.core.evaluation import (
    BestSingle,
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
from optllm_router.records import Floats

MAX_JUDGED_POINTS = 500  # of a front, where every point is compared with every other one
N_DRAWN = 200


def run(name: str, build: BuildRouter, split: Split, terms: Terms, by: Judged) -> Run:
    """Build a router on the labelled part, walk its front on the test part, and judge it."""
    start = time.perf_counter()
    routed = build(split, terms)
    seconds = time.perf_counter() - start
    test, asked = by.test, asked_of(routed, split)
    best, once = best_single(test.scores, test.cost_usd), np.ones(test.n_queries, dtype=np.int64)
    points = realised(routed.walk, by)
    curve = points.curve(0, test.n_queries)
    figures = {
        **_headline(points, by, once, best),
        **policy_figures(asked, best, once.astype(np.float64)),
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
        resampled=_resampled_figures(routed.walk, asked, by),
        drawn=_drawn(curve),
        reliability=_reliability(routed, by.test),
        seconds=seconds,
        note=routed.note,
    )


def _headline(points: Realised, by: Judged, count: Counts, best: BestSingle) -> dict[str, float]:
    """The figures that have intervals, of queries that count so often, not all 0."""
    n = int(count.sum())
    cheapest, curve = float((count @ by.test.cost_usd).min()), points.curve(0, n)
    figures = {**_crossfitted(points, by, count, best), "max_accuracy": max_accuracy(curve)}
    if best.cost_usd > 0.0:
        figures["saving_at_best"] = saving_at_best(curve, best.score, best.cost_usd)
    if cheapest > 0.0:  # budgets are geometric
        most = best.cost_usd
        figures["budget_area"] = budget_area(curve, cheapest_usd=cheapest, best_cost_usd=most)
        trusted = points.trusted(n)
        figures["overspend"] = overspend(trusted, cheapest_usd=cheapest, best_cost_usd=most)
    return figures


def _crossfitted(points: Realised, by: Judged, count: Counts, best: BestSingle) -> dict[str, float]:
    """Pick the point on one half of the test texts and read it off on the other, both ways."""
    halves = [count * (by.half == side) for side in (0, 1)]
    n, j = [int(half.sum()) for half in halves], best.column  # one candidate for both halves
    cost = [float(half @ by.test.cost_usd[:, j]) for half in halves]
    if not all(n) or not min(cost) > 0.0:
        return {}
    score = [float(half @ by.test.scores[:, j]) for half in halves]
    found = saving_crossfit(
        points.curve(1, n[0]),
        points.curve(2, n[1]),
        best=(score[0] / n[0], score[1] / n[1]),
        best_cost_usd=(cost[0], cost[1]),
    )
    return {"saving_crossfit": found.saving, "shortfall_crossfit": found.shortfall}


def _resampled_figures(walk: Walk, asked: Asked, by: Judged) -> dict[str, Floats]:
    """The headline and the policies' figures in every resample, NaN where one is not defined."""
    found = [
        {}
        if best is None
        else _headline(points, by, count, best)
        | policy_figures(asked, best, count.astype(np.float64))
        for points, count, best in zip(resampled(walk, by), by.weights, by.best, strict=True)
    ]
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
    return points[every(len(points), -(-len(points) // MAX_JUDGED_POINTS))]


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
    at = every(curve.score.size, -(-curve.score.size // N_DRAWN))
    return Drawn(cost_usd=curve.cost_usd[at], score=curve.score[at])
