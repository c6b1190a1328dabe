"""All hulls merged by slope into one chain, and the cost and accuracy after each step.

A point's cost is the exact sum of its columns' costs, rounded once. It must not depend on the path
to it, or a budget equal to a point's cost could miss the point. So every cell is split into a
multiple of one power of two, whose running sum is exact in floats, and a rest of a few bits, whose
running sum is exact too unless costs differ by more than about fifteen orders of magnitude; then
the last bit may be off (error-free splitting: Rump, Ogita & Oishi, SIAM J. Sci. Comput. 31(1),
2008). Cost and probability travel as the two parts of one complex number: that halves the lookups,
and numpy adds up two sums in the time of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.front.cells import Cells
from optllm_router.core.front.hulls import Vertices, cost_scale
from optllm_router.records import Floats, Ints

_CHUNK = 2**12  # steps added up at once: temporaries of 64 kB, which stay in cache

_Complexes = NDArray[np.complex128]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chain:
    """Points of the front, each a prefix of the merged steps.

    `cell` numbers the vertices' cells along the rows, query by query along its hull. `order` holds
    vertex numbers: first of each query's cheapest column, then of the steps, in their order.
    `cost_usd`, `accuracy` and `taken` (how much of `order` a point has taken) are (n_points,) and
    strictly increase.
    """

    cell: NDArray[np.signedinteger]
    order: Ints
    cost_usd: Floats
    accuracy: Floats
    taken: Ints

    def cells_at(self, point: int) -> NDArray[np.signedinteger]:
        """Return the cells on the way to a point; of each query the last is the chosen one."""
        return self.cell.take(self.order[: self.taken[point]])

    def totals_of(self, values: Floats, n_queries: int) -> Floats:
        """Return the sum of `values`, one per cell, over the chosen cells of each point."""
        step = self.order[n_queries:]
        totals = np.empty(1 + step.size)
        totals[0] = values.take(self.cell.take(self.order[:n_queries])).sum()
        totals[1:] = values.take(self.cell.take(step)) - values.take(self.cell.take(step - 1))
        return np.cumsum(totals).take(self.taken - n_queries)

    def step_from(self, point: int) -> tuple[int, int]:
        """Return the cells from and to which the step after a point goes; not for the last."""
        vertex = int(self.order[self.taken[point]])
        return int(self.cell[vertex - 1]), int(self.cell[vertex])


def merged(cells: Cells, vertices: Vertices) -> Chain:
    """Merge the steps, the steepest first, equal slopes by query; add up cost and accuracy.

    Points that floats cannot tell apart become one: of equal costs the most accurate stays, then
    of equal accuracies the cheapest. An empty batch has one point of cost 0 and accuracy 0.

    Args:
        cells: the matrices.
        vertices: of all hulls; their keys are overwritten.
    """
    n_queries = len(cells.prob)
    order = _steepest_first(vertices, n_queries, cost_scale(cells))
    cell, point = vertices.cell, vertices.point
    cost, accuracy = _running_totals(cells, point, order)
    del vertices, point  # on large batches the largest arrays: make room
    accuracy /= max(n_queries, 1)
    points = _distinct(cost, accuracy)
    if points.size < cost.size:
        cost, accuracy = cost[points], accuracy[points]
    points += n_queries
    return Chain(cell=cell, order=order, cost_usd=cost, accuracy=accuracy, taken=points)


def _steepest_first(vertices: Vertices, n_queries: int, scale: float) -> Ints:
    """Sort by falling slope, ties by vertex number; the queries' first vertices come first.

    The keys sort several times as fast as an `argsort` of the slopes. The few that differ in the
    bits which their own numbers replaced are sorted once more.
    """
    order, number = vertices.key, (1 << vertices.n_bits) - 1
    order.sort()
    steps = order[n_queries:]
    alike = (steps[1:] ^ steps[:-1]) <= number
    order &= number
    if alike.any():
        among = np.append(alike, False)
        among[1:] |= alike
        again = steps[among]
        slope = _slopes(vertices.point, again, scale)
        if (slope[1:] > slope[:-1]).any():  # equal slopes are in order: their numbers rise
            steps[among] = again[np.argsort(-slope, kind="stable")]
    return order


def _slopes(point: _Complexes, vertices: Ints, scale: float) -> Floats:
    """Return the slopes to some vertices from the ones before, as the hulls compute them."""
    slopes = np.empty(vertices.size)
    for low in range(0, vertices.size, _CHUNK):
        part = vertices[low : low + _CHUNK]
        new, old = point.take(part), point.take(part - 1)
        slopes[low : low + _CHUNK] = (new.imag - old.imag) / ((new.real - old.real) * scale)
    return slopes


def _running_totals(cells: Cells, point: _Complexes, order: Ints) -> tuple[Floats, Floats]:
    """Return total cost and total probability at the start and after each step, (1 + n_steps,)."""
    n_queries = len(cells.prob)
    grid = complex(_grid(cells.largest_usd * n_queries), _grid(float(n_queries)))
    steps = order[n_queries:]
    cost, prob = np.empty(1 + steps.size), np.empty(1 + steps.size)
    carry = [complex(part.sum()) for part in _split(point.take(order[:n_queries]), grid)]
    cost[0], prob[0] = sum(carry).real, sum(carry).imag
    for low in range(0, steps.size, _CHUNK):
        step = steps[low : low + _CHUNK]
        total = _advanced(point, step, grid, carry)
        part = slice(1 + low, 1 + low + step.size)
        cost[part], prob[part] = total.real, total.imag
    return cost, prob


def _advanced(point: _Complexes, step: Ints, grid: complex, carry: list[complex]) -> _Complexes:
    """Return the totals after each of some steps, and update the two sums to `carry` on."""
    coarse, fine = _split(point.take(step), grid)
    coarse_old, fine_old = _split(point.take(step - 1), grid)
    coarse -= coarse_old
    fine -= fine_old
    coarse[0] += carry[0]
    fine[0] += carry[1]
    np.cumsum(coarse, out=coarse)
    np.cumsum(fine, out=fine)
    carry[:] = complex(coarse[-1]), complex(fine[-1])
    coarse += fine
    return coarse


def _split(values: _Complexes, grid: complex) -> tuple[_Complexes, _Complexes]:
    """Split exactly into multiples of the grid's last bit and what is left, in place."""
    coarse = values + grid
    coarse -= grid
    values -= coarse
    return coarse, values


def _grid(bound: float) -> float:
    """Return what, added and subtracted, rounds to multiples of about 2**-51 of the bound."""
    return math.ldexp(1.5, math.frexp(bound)[1] + 1) if bound else 0.0


def _distinct(cost: Floats, accuracy: Floats) -> Ints:
    """Return the points to keep, so that both axes strictly increase; first neither may fall."""
    if (cost[1:] > cost[:-1]).all() and (accuracy[1:] > accuracy[:-1]).all():
        return np.arange(cost.size)
    np.maximum.accumulate(cost, out=cost)
    np.maximum.accumulate(accuracy, out=accuracy)
    kept = np.flatnonzero(np.append(cost[1:] > cost[:-1], True))
    better = accuracy[kept]
    points: Ints = kept[np.append(True, better[1:] > better[:-1])]
    return points
