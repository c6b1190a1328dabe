"""Some points of a walk, added up for many resamples of its queries at once.

From one point to the next few queries change their candidate, so that what the steps add under all
resamples is one sparse product, and the points' totals are its running sums.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from optllm_router.records import Floats, Ints


class Thinned(Protocol):
    """Points of a walk; `weights` (n_queries, n_resamples) say how often each query counts."""

    def totals(self, values: Floats, weights: Floats) -> Floats:
        """Return the points' sums of `values` (n_queries, n_candidates) under every weighting.

        Shape (n_points, n_resamples).
        """
        ...

    def forecast(self, weights: Floats) -> Floats:
        """Return what the points are expected to cost in USD, (n_points, n_resamples)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Allocations, by the first of them, (n_queries,), and what changes on the way to the others.

    `step`, `query`, `old` and `new`, (n_changes,) each: the step that a change belongs to, from 0,
    and its candidates. `cells` (n_queries, n_candidates) are expected costs in USD.
    """

    first: Ints
    n_points: int
    step: Ints
    query: Ints
    old: Ints
    new: Ints
    cells: Floats

    @classmethod
    def between(cls, choices: Iterable[Ints], cells: Floats) -> Self:
        """Note what changes between neighbours of at least one allocation, (n_queries,) each."""
        allocations = iter(choices)
        first = before = next(allocations)
        none = np.empty(0, dtype=np.int64)
        query, old, new = [none], [none], [none]  # of every point what changed on the way to it
        for choice in allocations:
            changed = np.flatnonzero(choice != before)
            query.append(changed)
            old.append(before[changed])
            new.append(choice[changed])
            before = choice
        step = np.repeat(np.arange(len(query)) - 1, [changed.size for changed in query])
        return cls(
            first=first,
            n_points=len(query),
            step=step,
            query=np.concatenate(query),
            old=np.concatenate(old),
            new=np.concatenate(new),
            cells=cells,
        )

    def totals(self, values: Floats, weights: Floats) -> Floats:
        """See `Thinned`."""
        from scipy.sparse import csr_matrix

        change = values[self.query, self.new] - values[self.query, self.old]
        shape = (self.n_points - 1, len(values))
        steps = csr_matrix((change, (self.step, self.query)), shape=shape)
        totals = np.empty((self.n_points, weights.shape[1]))
        totals[0] = picked(values, self.first) @ weights
        totals[1:] = np.asarray(steps @ weights)
        return np.cumsum(totals, axis=0, out=totals)

    def forecast(self, weights: Floats) -> Floats:
        """See `Thinned`."""
        return self.totals(self.cells, weights)


@dataclass(frozen=True, slots=True, eq=False)
class Mixes:
    """Points of a mix: `shares` (n_points, n_candidates), and what they are expected to cost."""

    shares: Floats
    forecast_usd: Floats

    def totals(self, values: Floats, weights: Floats) -> Floats:
        """See `Thinned`."""
        return np.asarray(self.shares @ (values.T @ weights))

    def forecast(self, weights: Floats) -> Floats:
        """See `Thinned`."""
        return np.outer(self.forecast_usd, weights.mean(axis=0))


def picked(values: Floats, choice: Ints) -> Floats:
    """Return every query's value, (n_queries,), at its candidate."""
    return np.asarray(values[np.arange(len(values)), choice])
