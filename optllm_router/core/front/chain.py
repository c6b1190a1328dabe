"""All queries' steps merged by slope into one chain, and the cost and accuracy after each step.

A point's cost is the exact sum of its columns' costs, rounded once. It must not depend on the path
to it, or a budget equal to a point's cost could miss the point. So every cell is split into a
multiple of one power of two, whose running sum is exact in floats, and a rest of a few bits, whose
running sum is exact too unless costs differ by more than about fifteen orders of magnitude; then
the last bit may be off (error-free splitting: Rump, Ogita & Oishi, SIAM J. Sci. Comput. 31(1),
2008).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optllm_router.core.front.cells import Cells
from optllm_router.core.front.hulls import Codes, Steps
from optllm_router.records import Floats, Ints

_CHUNK = 2**12  # steps looked up at once: temporaries of 32 kB, which allocators keep at hand


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """Points of the front, each a prefix of the merged steps.

    `cost_usd`, `accuracy` and `taken` (how many steps a point has taken) are (n_points,) and
    strictly increase.
    """

    start: Codes
    steps: Steps
    cost_usd: Floats
    accuracy: Floats
    taken: Ints


def merged(cells: Cells, hulls: tuple[Codes, Steps]) -> Chain:
    """Merge the steps, the steepest first, equal slopes by query; add up cost and accuracy.

    Points that floats cannot tell apart become one: of equal costs the most accurate stays, then
    of equal accuracies the cheapest. An empty batch has one point of cost 0 and accuracy 0.

    Args:
        cells: the matrices.
        hulls: the cheapest column of each query, (n_queries,), and the steps.
    """
    start, steps = hulls
    order = _steepest_first(steps)
    ordered = Steps(
        query=steps.query[order],
        source=steps.source[order],
        target=steps.target[order],
        slope=np.zeros(0),  # the order says it all; `price` recomputes a slope from the cells
    )
    del order, steps, hulls  # on large batches the largest arrays: make room
    cost, accuracy = _running_totals(cells, start, ordered)
    accuracy /= max(start.size, 1)
    taken = _distinct(cost, accuracy)
    if taken.size < cost.size:
        cost, accuracy = cost[taken], accuracy[taken]
    return Chain(start=start, steps=ordered, cost_usd=cost, accuracy=accuracy, taken=taken)


def _steepest_first(steps: Steps) -> Ints:
    """Sort by falling slope, ties by query, a query's ties in the order of its hull."""
    falling = -steps.slope
    order = np.argsort(falling)
    in_order = falling[order]
    if (in_order[1:] == in_order[:-1]).any():
        del order, in_order
        order = np.lexsort((steps.query, falling))  # stable, and slower than the sort above
    return order


def _running_totals(cells: Cells, start: Codes, steps: Steps) -> tuple[Floats, Floats]:
    """Return total cost and total probability at the start and after each step, (1 + n_steps,)."""
    n_queries, n_columns = cells.prob.shape
    first = np.arange(n_queries) * n_columns + start
    cost = _Total(cells.cost_usd, first, steps.query.size, bound=cells.largest_usd * n_queries)
    prob = _Total(cells.prob, first, steps.query.size, bound=float(n_queries))
    for low in range(0, steps.query.size, _CHUNK):
        part = slice(low, low + _CHUNK)
        row = steps.query[part].astype(np.int64) * n_columns
        old, new = row + steps.source[part], row + steps.target[part]
        cost.add(old, new)
        prob.add(old, new)
    return cost.after_each(), prob.after_each()


class _Total:
    """The running sum of one matrix's cells while queries are upgraded from cell to cell."""

    def __init__(self, values: Floats, first: Ints, n_steps: int, *, bound: float) -> None:
        self._cells = values.reshape(-1)
        self._grid = _grid(bound)
        self._sums = np.empty(1 + n_steps)
        self._filled = 1
        coarse, fine = self._split(self._cells.take(first))
        self._carry = float(coarse.sum()), float(fine.sum())
        self._sums[0] = sum(self._carry)

    def add(self, old: Ints, new: Ints) -> None:
        """Go on by some steps, each from one cell to another; numbers count along the rows."""
        coarse, fine = self._split(self._cells.take(new))
        coarse_old, fine_old = self._split(self._cells.take(old))
        coarse -= coarse_old
        fine -= fine_old
        coarse[0] += self._carry[0]
        fine[0] += self._carry[1]
        np.cumsum(coarse, out=coarse)
        np.cumsum(fine, out=fine)
        self._carry = float(coarse[-1]), float(fine[-1])
        end = self._filled + old.size
        np.add(coarse, fine, out=self._sums[self._filled : end])
        self._filled = end

    def after_each(self) -> Floats:
        """Return the sums, which never fall."""
        return np.maximum.accumulate(self._sums, out=self._sums)

    def _split(self, values: Floats) -> tuple[Floats, Floats]:
        """Split exactly into multiples of the grid's last bit and what is left."""
        coarse = (values + self._grid) - self._grid
        return coarse, values - coarse


def _grid(bound: float) -> float:
    """Return what, added and subtracted, rounds to multiples of about 2**-51 of the bound."""
    return math.ldexp(1.5, math.frexp(bound)[1] + 1) if bound else 0.0


def _distinct(cost: Floats, accuracy: Floats) -> Ints:
    """Return the points to keep, so that both axes strictly increase."""
    dearer = np.append(cost[1:] > cost[:-1], True)
    if dearer.all() and (accuracy[1:] > accuracy[:-1]).all():
        return np.arange(cost.size)
    kept = np.flatnonzero(dearer)
    better = accuracy[kept]
    points: Ints = kept[np.append(True, better[1:] > better[:-1])]
    return points
