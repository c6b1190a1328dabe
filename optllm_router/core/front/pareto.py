"""The face of the front: `pareto_front` and what one asks of a `ParetoFront`."""

from __future__ import annotations

import bisect
import math
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.front.cells import Cells, checked
from optllm_router.core.front.chain import Chain, merged
from optllm_router.core.front.fill import best_within, fill_up
from optllm_router.core.front.hulls import hull_vertices
from optllm_router.errors import InfeasiblePolicyError
from optllm_router.records import Bools, Floats, Ints

TOLERANCE = 1e-12
"""How far below the least cost a budget, or above the highest accuracy a target, still reaches it.

Relative. People add the same floats up in another order and are off by a few last bits; refusing
them would help nobody. 1e-12 of 1,000 USD is one nano-USD, the ledger's unit. Everywhere between
the two ends comparisons are exact.
"""


def pareto_front(
    prob: ArrayLike, cost_usd: ArrayLike, allowed: ArrayLike | None = None
) -> ParetoFront:
    """Compute every supported trade-off between a batch's total cost and its mean accuracy.

    All queries start on their cheapest column and are upgraded along their convex hulls, the
    steepest upgrade of all queries first (Sinha & Zoltners 1979). Ties: the cheaper column wins,
    then the lower index; equally steep upgrades go by query. Time O(n m**2 + K log K) with K
    upgrades; the points hold upgrades, not allocations.

    Args:
        prob: expected success probabilities in [0, 1], (n_queries, n_columns).
        cost_usd: expected costs in USD, finite and not negative, (n_queries, n_columns).
        allowed: which columns can serve which query, (n_queries, n_columns) of bool; None allows
            all. Cells that are not allowed are not read. The arrays are kept, not copied: do not
            change them while the front is in use.

    Returns:
        The front. An empty batch has one point of cost 0 and accuracy 0, which reaches any target.

    Raises:
        ValueError: Shapes that differ; a value out of range, with its row and column.
        NoCandidateError: A row without any allowed column.
    """
    cells = checked(prob, cost_usd, allowed)
    return ParetoFront(_cells=cells, _chain=merged(cells, hull_vertices(cells)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ParetoFront:
    """Points of total cost in USD and mean accuracy, each with the allocation that reaches it.

    It has every vertex of the upper-left convex hull of all allocations, and the points that the
    merge passes between them; a point `k` counts from the cheapest, negative ones from the dearest.
    """

    _cells: Cells
    _chain: Chain

    def __repr__(self) -> str:  # type: ignore[explicit-override]  # `override` is from 3.12 on
        return (
            f"ParetoFront(n_queries={self.n_queries}, n_columns={self.n_columns}, "
            f"n_points={self.n_points}, cost_usd={self.cost_usd[0]:.6g}..{self.cost_usd[-1]:.6g}, "
            f"accuracy={self.accuracy[0]:.4f}..{self.accuracy[-1]:.4f})"
        )

    @property
    def n_queries(self) -> int:
        """How many queries the batch has."""
        return int(self._cells.prob.shape[0])

    @property
    def n_columns(self) -> int:
        """How many columns a query may choose from."""
        return int(self._cells.prob.shape[1])

    @property
    def n_points(self) -> int:
        """How many points the front has, at least one."""
        return int(self.cost_usd.size)

    @property
    def cost_usd(self) -> Floats:
        """Total cost of the batch at each point in USD, (n_points,), strictly increasing."""
        return self._chain.cost_usd

    @property
    def accuracy(self) -> Floats:
        """Mean success probability at each point, (n_points,), strictly increasing."""
        return self._chain.accuracy

    def choice(self, k: int) -> Ints:
        """Return the column of each query at point `k`, (n_queries,); a new array each time."""
        cells = self._chain.cells_at(self._point(k))
        query = cells // self.n_columns
        choice = np.empty(self.n_queries, np.int64)
        # Of a query that occurs several times the last assignment stays: its latest upgrade.
        choice[query] = cells - query * self.n_columns
        return choice

    def totals_of(self, values: Floats) -> Floats:
        """Return the sum over all queries of any value at their columns, per point, (n_points,).

        For example realised costs or scores; the sums are plain running ones.

        Args:
            values: finite, (n_queries, n_columns).
        """
        return self._chain.totals_of(values.reshape(-1), self.n_queries)

    def at_budget(self, usd: float) -> int:
        """Return the last point that costs at most `usd`; exactly `k` for `cost_usd[k]`.

        Raises:
            InfeasiblePolicyError: Even the cheapest point costs more (by more than `TOLERANCE`).
            ValueError: `usd` is NaN.
        """
        least = float(self.cost_usd[0])
        _require_number("usd", usd)
        if usd < least * (1.0 - TOLERANCE):
            raise InfeasiblePolicyError(
                f"a budget of {usd:.10g} USD is below {least!r} USD, the cost of sending every "
                "query to its cheapest column: raise it to at least that, or allow a cheaper "
                "candidate.",
                asked=float(usd),
                nearest=least,
            )
        return max(0, int(np.searchsorted(self.cost_usd, usd, side="right")) - 1)

    def at_accuracy(self, accuracy: float) -> int:
        """Return the first point that reaches `accuracy`; any target holds for an empty batch.

        Raises:
            InfeasiblePolicyError: Even the last point is below (by more than `TOLERANCE`).
            ValueError: `accuracy` is NaN.
        """
        _require_number("accuracy", accuracy)
        most = float(self.accuracy[-1])
        if self.n_queries and accuracy * (1.0 - TOLERANCE) > most:
            raise InfeasiblePolicyError(
                f"an accuracy of {accuracy:.10g} is above {most!r}, which the most accurate column "
                "of every query reaches: ask for at most that, or add a stronger candidate.",
                asked=float(accuracy),
                nearest=most,
            )
        return min(self.n_points - 1, int(np.searchsorted(self.accuracy, accuracy, side="left")))

    def at_price(self, dual_price: float) -> int:
        """Return the first point where one more USD buys at most `dual_price` successes.

        Its queries maximise `prob - dual_price * cost_usd`, the cheaper column on ties.

        Raises:
            ValueError: `dual_price` is NaN.
        """
        _require_number("dual_price", dual_price)
        points = range(self.n_points)
        found = bisect.bisect_left(points, -dual_price, key=lambda k: -self.price(k))
        return min(found, self.n_points - 1)

    def knee(self) -> int:
        """Return the point farthest above the line between the two ends, the cheapest of a tie.

        Both axes scaled to [0, 1] (the maximum-distance knee of Das, Structural Optimization
        18(2-3), 1999). A front of one or two points has its knee at 0.
        """
        cost = self.cost_usd - self.cost_usd[0]
        gain = self.accuracy - self.accuracy[0]
        if self.n_points < 3:
            return 0
        return int(np.argmax(gain / gain[-1] - cost / cost[-1]))

    def price(self, k: int) -> float:
        """Return the successes that one more USD buys at point `k`: the dual price of money.

        It is the slope of the next step, n_queries times that of the mean accuracy, so it falls
        along the front; at the last point, where no money buys anything, it is 0. The price of the
        step that led to `k` is `price(k - 1)`.
        """
        point = self._point(k)
        if point == self.n_points - 1:
            return 0.0
        old, new = self._chain.step_from(point)
        prob, cost = self._cells.prob.reshape(-1), self._cells.cost_usd.reshape(-1)
        return (float(prob[new]) - float(prob[old])) / (float(cost[new]) - float(cost[old]))

    def fill(self, usd: float) -> Ints:
        """Return the column of each query, (n_queries,), that spends a budget as far as it goes.

        The point within the budget, plus single-query improvements that still fit, the steepest
        first, on the hull or not, until none fits. Less than one query's gain below the optimum;
        for one query the optimum. `cost_of` it never exceeds `usd` (only at the cheapest point by
        `TOLERANCE`).

        Raises:
            InfeasiblePolicyError: As in `at_budget`.
            ValueError: `usd` is NaN.
        """
        point = self.at_budget(usd)
        choice, left_usd = fill_up(self._cells, self.choice(point), float(usd))
        while left_usd < 0.0 and point > 0:  # the point's cost was a last bit too low
            point -= 1
            choice, left_usd = fill_up(self._cells, self.choice(point), float(usd))
        return choice

    def gap(self, usd: float) -> float:
        """Return how far `fill(usd)` can be below the best allocation within the budget.

        A certificate in mean accuracy: the upper bound of the LP relaxation, which is the line
        through the front's points, minus what `fill(usd)` reaches; less than 1 / n_queries.

        Raises:
            InfeasiblePolicyError: As in `at_budget`.
            ValueError: `usd` is NaN.
        """
        reached = self.accuracy_of(self.fill(usd))
        bound = float(np.interp(usd, self.cost_usd, self.accuracy))
        return max(0.0, bound - reached)

    def best_within(self, usd_per_query: float) -> tuple[Ints, Bools]:
        """Return each query's most probable column of at most `usd_per_query`, and where none is.

        Ties go to the cheaper column, then to the lower index. A query without such a column gets
        its cheapest, and true in the second array; (n_queries,) each.
        """
        _require_number("usd_per_query", usd_per_query)
        return best_within(self._cells, float(usd_per_query))

    def can_use(self, column: int) -> Bools:
        """Return which queries may use a column, (n_queries,)."""
        allowed = self._cells.allowed
        return np.ones(self.n_queries, np.bool_) if allowed is None else allowed[:, column].copy()

    def costs_of(self, choice: Ints) -> Floats:
        """Return the cost in USD of each query under any choice, (n_queries,)."""
        return self._cells.picked(self._cells.cost_usd, choice)

    def cost_of(self, choice: Ints) -> float:
        """Return the total cost in USD of any choice (n_queries,), its sum rounded once."""
        return math.fsum(self.costs_of(choice).tolist())

    def accuracy_of(self, choice: Ints) -> float:
        """Return the mean probability of any choice (n_queries,); 0 for an empty batch."""
        total = math.fsum(self._cells.picked(self._cells.prob, choice).tolist())
        return total / max(self.n_queries, 1)

    def _point(self, k: int) -> int:
        point = operator.index(k)
        if not -self.n_points <= point < self.n_points:
            raise IndexError(
                f"there is no point {point}: the front has {self.n_points}, 0 is the cheapest and "
                f"{self.n_points - 1} the most accurate."
            )
        return point % self.n_points


def _require_number(name: str, value: float) -> None:
    if math.isnan(value):
        raise ValueError(f"`{name}` is NaN, but a number is needed: check how it was computed.")
