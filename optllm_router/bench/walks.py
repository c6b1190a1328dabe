"""A router's curve before anything is realised: allocations of all test queries, cheapest first.

A walk is linear in what is added up, so one method serves costs, scores, halves and resamples: the
total, at every point, of any value per query and candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from optllm_router.core.front import ParetoFront
from optllm_router.records import Floats, Ints


class Walk(Protocol):
    """Points with their forecast total cost in USD, (n_points,), ascending."""

    @property
    def forecast_usd(self) -> Floats:
        """What the router expects each point to cost."""
        ...

    def totals(self, values: Floats) -> Floats:
        """Return every point's sum of `values` (n_queries, n_candidates) over its allocation."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FrontWalk:
    """Every point of an exact front."""

    front: ParetoFront

    @property
    def forecast_usd(self) -> Floats:
        """The costs that the front was computed with."""
        return self.front.cost_usd

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        return self.front.totals_of(values)


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceWalk:
    """A list of allocations, `choice` (n_points, n_queries)."""

    choice: Ints
    forecast_usd: Floats

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        each = np.arange(values.shape[0])
        return np.array([values[each, choice].sum() for choice in self.choice])


@dataclass(frozen=True, slots=True, eq=False)
class MixWalk:
    """Random assignments in expectation: at a point every query is sent by the same `shares`.

    `shares` is (n_points, n_candidates), each row sums to 1.
    """

    shares: Floats
    forecast_usd: Floats

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        return np.asarray(self.shares @ values.sum(axis=0))


def choices_walk(choice: Ints, forecast_usd: Floats) -> ChoiceWalk:
    """Return allocations as a walk, by their forecast cost per query and candidate.

    Args:
        choice: (n_points, n_queries), in any order.
        forecast_usd: (n_queries, n_candidates).
    """
    unordered = ChoiceWalk(choice, np.zeros(len(choice)))
    cost = unordered.totals(forecast_usd)
    order = np.argsort(cost, kind="stable")
    return ChoiceWalk(choice[order], cost[order])


def hull_mix(scores: Floats, cost_usd: Floats, n_queries: int, *, n_points: int = 201) -> MixWalk:
    """Return the walk along the hull of single candidates, mixing neighbours at random.

    The zero-router of RouterBench (arXiv 2403.12031): it knows candidates, but not queries.

    Args:
        scores: mean score per candidate, (n_candidates,).
        cost_usd: mean cost of a query per candidate, (n_candidates,).
        n_queries: the queries to allocate.
        n_points: evenly spaced in cost.
    """
    hull = _upper_left_hull(scores, cost_usd)
    at = np.unique(
        np.append(np.linspace(cost_usd[hull[0]], cost_usd[hull[-1]], n_points), cost_usd[hull])
    )
    shares = np.zeros((at.size, scores.size))
    for j, candidate in enumerate(hull):
        corner = np.zeros(len(hull))
        corner[j] = 1.0
        shares[:, candidate] = np.interp(at, cost_usd[hull], corner)
    return MixWalk(shares, at * n_queries)


def _upper_left_hull(scores: Floats, cost_usd: Floats) -> Ints:
    """The candidates on the hull, the cheapest first, costs strictly increasing."""
    hull: list[int] = []
    for j in np.lexsort((-scores, cost_usd)):
        if hull and scores[j] <= scores[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(scores, cost_usd, hull[-2], hull[-1]) <= _slope(
            scores, cost_usd, hull[-1], j
        ):
            hull.pop()
        if hull and cost_usd[j] == cost_usd[hull[-1]]:
            hull.pop()
        hull.append(int(j))
    return np.array(hull, dtype=np.int64)


def _slope(scores: Floats, cost_usd: Floats, low: int, high: int) -> float:
    step = float(cost_usd[high] - cost_usd[low])
    return float(scores[high] - scores[low]) / step if step > 0 else np.inf
