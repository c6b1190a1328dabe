"""A router's curve before anything is realised: allocations of all test queries, cheapest first.

A walk is linear in what is added up, so one method serves costs, scores, halves and resamples: the
total, at every point, of any value per query and candidate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from optllm_router.bench.thinning import Mixes, Steps, Thinned, picked
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

    def each(self, point: int, values: Floats) -> Floats:
        """Return every query's part, (n_queries,), of a point's sum of `values`."""
        ...

    def forecast_each(self, point: int, n_queries: int) -> Floats:
        """Return every query's part, (n_queries,), of a point's forecast cost in USD."""
        ...

    def thinned(self, points: Ints) -> Thinned:
        """Return some of its points, in ascending order, to be added up under many weights."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FrontWalk:
    """Every point of an exact front; `cells` are the costs that it was computed with."""

    front: ParetoFront
    cells: Floats = field(init=False, repr=False)

    def __post_init__(self) -> None:
        n, m = self.front.n_queries, self.front.n_columns
        columns = [self.front.costs_of(np.full(n, j, dtype=np.int64)) for j in range(m)]
        object.__setattr__(self, "cells", np.column_stack(columns))

    @property
    def forecast_usd(self) -> Floats:
        """The costs that the front was computed with."""
        return self.front.cost_usd

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        return self.front.totals_of(values)

    def each(self, point: int, values: Floats) -> Floats:
        """See `Walk`."""
        return picked(values, self.front.choice(point))

    def forecast_each(self, point: int, n_queries: int) -> Floats:  # noqa: ARG002
        """See `Walk`."""
        return picked(self.cells, self.front.choice(point))

    def thinned(self, points: Ints) -> Thinned:
        """See `Walk`."""
        return Steps.between(map(self.front.choice, points.tolist()), self.cells)


@dataclass(frozen=True, slots=True, eq=False)
class ChoiceWalk:
    """A list of allocations, `choice` (n_points, n_queries).

    `cells` (n_queries, n_candidates) are the costs that they are expected to have, in USD.
    """

    choice: Ints
    forecast_usd: Floats
    cells: Floats
    changes: tuple[Ints, Ints, Ints, Ints] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note what changes between neighbours: step, query, new and old column."""
        step, query = np.nonzero(self.choice[1:] != self.choice[:-1])
        new, old = self.choice[step + 1, query], self.choice[step, query]
        object.__setattr__(self, "changes", (step, query, new, old))

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        step, query, new, old = self.changes
        change = values[query, new] - values[query, old]
        steps = np.bincount(step, weights=change, minlength=len(self.choice) - 1)
        return np.cumsum(np.append(picked(values, self.choice[0]).sum(), steps))

    def each(self, point: int, values: Floats) -> Floats:
        """See `Walk`."""
        return picked(values, self.choice[point])

    def forecast_each(self, point: int, n_queries: int) -> Floats:  # noqa: ARG002
        """See `Walk`."""
        return picked(self.cells, self.choice[point])

    def thinned(self, points: Ints) -> Thinned:
        """See `Walk`."""
        return Steps.between(self.choice[points], self.cells)


@dataclass(frozen=True, slots=True, eq=False)
class MixWalk:
    """Random assignments in expectation: at a point every query is sent by the same `shares`.

    `shares` is (n_points, n_candidates), each row sums to 1. Every query is expected to cost alike.
    """

    shares: Floats
    forecast_usd: Floats

    def totals(self, values: Floats) -> Floats:
        """See `Walk`."""
        return np.asarray(self.shares @ values.sum(axis=0))

    def each(self, point: int, values: Floats) -> Floats:
        """See `Walk`."""
        return np.asarray(values @ self.shares[point])

    def forecast_each(self, point: int, n_queries: int) -> Floats:
        """See `Walk`."""
        return np.full(n_queries, self.forecast_usd[point] / n_queries)

    def thinned(self, points: Ints) -> Thinned:
        """See `Walk`."""
        return Mixes(self.shares[points], self.forecast_usd[points])


def choices_walk(choice: Ints, forecast_usd: Floats) -> ChoiceWalk:
    """Return allocations as a walk, by their forecast cost per query and candidate.

    Args:
        choice: (n_points, n_queries), in any order.
        forecast_usd: (n_queries, n_candidates).
    """
    cost = np.array([picked(forecast_usd, one).sum() for one in choice])
    order = np.argsort(cost, kind="stable")
    return ChoiceWalk(choice[order], cost[order], forecast_usd)


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
    """The candidates on the hull, the cheapest first, costs and scores strictly increasing."""
    hull: list[int] = []
    for j in np.lexsort((-scores, cost_usd)):
        if hull and scores[j] <= scores[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(scores, cost_usd, hull[-2], hull[-1]) <= _slope(
            scores, cost_usd, hull[-1], j
        ):
            hull.pop()
        hull.append(int(j))
    return np.array(hull, dtype=np.int64)


def _slope(scores: Floats, cost_usd: Floats, low: int, high: int) -> float:
    return float(scores[high] - scores[low]) / float(cost_usd[high] - cost_usd[low])
