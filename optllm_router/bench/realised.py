"""What the points of a walk cost and score on the test part, as it is and resampled by text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.thinning import Thinned
from optllm_router.bench.walks import Walk
from optllm_router.core.evaluation import BestSingle, Curve, best_single
from optllm_router.records import Floats, Ints

Counts: TypeAlias = NDArray[np.signedinteger[Any]]  # how often each query counts

MAX_RESAMPLED_POINTS = 1_000
"""Of a longer walk every k-th point and the last are read while test texts are resampled, at most
one more than this."""

N_RESAMPLES_AT_ONCE = 100
"""So many resamples' counts of every test query are in memory as floats."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """What a split's routers are judged by.

    `half` (n_test,) is 0 or 1, by distinct text; `weights` (n_resamples, n_test) says how often
    each query counts in a resample, `best` which single candidate is the best in it, None where
    no query counts.
    """

    test: Problem
    half: Ints
    weights: Counts
    best: tuple[BestSingle | None, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        test = self.test
        best = tuple(
            best_single(test.scores, test.cost_usd, weights=count) if count.any() else None
            for count in self.weights
        )
        object.__setattr__(self, "best", best)


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Realised:
    """Points of a walk on queries that count some number of times: totals, in the walk's order.

    `forecast_usd` (n_points,) is for the whole test part, `expected_usd` for these queries;
    `cost_usd` and `score` (3, n_points) are of all of them, of the first half, of the second.
    """

    forecast_usd: Floats
    expected_usd: Floats
    cost_usd: Floats
    score: Floats

    def curve(self, part: int, n: int) -> Curve:
        """The points on all queries (0) or a half of them (1, 2), `n` in number."""
        return Curve(
            forecast_usd=self.forecast_usd,
            cost_usd=np.maximum(self.cost_usd[part], 0.0),
            score=np.minimum(np.maximum(self.score[part], 0.0) / n, 1.0),
        )

    def trusted(self, n: int) -> Curve:
        """The points on all queries, `n` in number, ordered by what these were forecast to cost."""
        curve, forecast = self.curve(0, n), np.maximum(self.expected_usd, 0.0)
        order = np.argsort(forecast, kind="stable")
        return Curve(
            forecast_usd=forecast[order],
            cost_usd=curve.cost_usd[order],
            score=curve.score[order],
        )


def realised(walk: Walk, by: Judged) -> Realised:
    """Realise every point of a walk, each test query counted once."""
    sides = [np.ones(by.test.n_queries), *(1.0 * (by.half == side) for side in (0, 1))]
    cost, score = (
        np.array([walk.totals(values * side[:, None]) for side in sides])
        for values in (by.test.cost_usd, by.test.scores)
    )
    return Realised(
        forecast_usd=walk.forecast_usd,
        expected_usd=walk.forecast_usd,
        cost_usd=cost,
        score=score,
    )


def resampled(walk: Walk, by: Judged) -> Iterator[Realised]:
    """Realise about `MAX_RESAMPLED_POINTS` points of a walk in every resample, in their order."""
    n_points = walk.forecast_usd.size
    at = every(n_points, -(-n_points // MAX_RESAMPLED_POINTS))
    if not len(by.weights):
        return
    points = walk.thinned(at)
    for start in range(0, len(by.weights), N_RESAMPLES_AT_ONCE):
        weights = by.weights[start : start + N_RESAMPLES_AT_ONCE].T.astype(np.float64, order="C")
        yield from _weighted(points, walk.forecast_usd[at], weights, by)


def _weighted(
    points: Thinned, forecast_usd: Floats, weights: Floats, by: Judged
) -> Iterator[Realised]:
    """Realise points under every column of `weights`, (n_test, n_resamples)."""
    halves = [weights * (by.half == side)[:, None] for side in (0, 1)]
    expected = points.forecast(weights)
    cost, score = (
        np.array([first + second, first, second])
        for first, second in (
            [points.totals(values, half) for half in halves]
            for values in (by.test.cost_usd, by.test.scores)
        )
    )
    for b in range(weights.shape[1]):
        yield Realised(
            forecast_usd=forecast_usd,
            expected_usd=expected[:, b],
            cost_usd=cost[:, :, b],
            score=score[:, :, b],
        )


def every(n_points: int, thin: int) -> Ints:
    """Every `thin`-th point from the first on, and the last."""
    at = np.arange(0, n_points, thin)
    return at if at[-1] == n_points - 1 else np.append(at, n_points - 1)
