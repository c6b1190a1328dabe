"""Each query's upper-left convex hull of (cost, probability), all queries of a block at once.

A column is a vertex of the hull if every line to it from a cheaper column rises, and none of the
lines from it to a dearer column is steeper than any of those. So with each query's columns sorted
by cost, all pairs of columns are looked at, one numpy pass per distance between them: no Python
loop over queries, nothing that depends on the data. Where the slopes from column to column only
fall, as on smooth curves, the first pass has seen enough.

Collinear columns are vertices of their own. This is the right answer in floats too: subtraction
and division round monotonically, so from one vertex to the next the slopes never rise. Columns
that are collinear but for the rounding may be vertices or not; it moves no point by more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.front.cells import Cells
from optllm_router.records import Bools, Floats, Ints

_BLOCK_CELLS = 18_000  # hides numpy's overhead, and a block's six matrices stay in cache
_SCALED_EXPONENT = 500  # costs are scaled to 2**500, so that no slope over- or underflows
_STEEPEST = np.finfo(np.float64).max  # into a query's first vertex; only a rise for nothing is inf


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vertices:
    """The vertices of all hulls, query by query from the cheapest, (n_vertices,) each.

    `cell` numbers the cells along the rows. `point` is cost in USD and probability as one complex
    number, because they are looked up together. `key` sorts: it rises while the slope from the
    vertex before falls, and a query's first vertex is below all others; its last `n_bits` bits
    are the vertex's own number, in place of as many bits of the slope.
    """

    cell: NDArray[np.signedinteger]
    point: NDArray[np.complex128]
    key: Ints
    n_bits: int


def hull_vertices(cells: Cells) -> Vertices:
    """Return the vertices of all hulls; an empty batch has none.

    A query's first vertex is its cheapest column, of equally cheap ones the most probable, then
    the first. A query whose cheapest column is its best has no other vertex.
    """
    n_queries, n_columns = cells.prob.shape
    size = cells.prob.size
    room = Vertices(
        cell=np.empty(size, np.int32 if size < 2**31 else np.int64),
        point=np.empty(size, np.complex128),
        key=np.empty(size, np.int64),
        n_bits=size.bit_length(),
    )
    used, n_rows = 0, max(1, _BLOCK_CELLS // max(1, n_columns))
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # forbidden: inf - inf
        for low in range(0, n_queries, n_rows):
            used = _append(room, used, cells, slice(low, min(low + n_rows, n_queries)))
    return Vertices(
        cell=room.cell[:used], point=room.point[:used], key=room.key[:used], n_bits=room.n_bits
    )


def cost_scale(cells: Cells) -> float:
    """Return the power of two that brings the largest cost near 2**500: exact, so ties stay."""
    return math.ldexp(1.0, min(_SCALED_EXPONENT - math.frexp(cells.largest_usd)[1], 1000))


def _append(room: Vertices, used: int, cells: Cells, block: slice) -> int:
    """Write the vertices of a block of queries after the first `used`; return the new number."""
    prob, cost = _readable(cells, block)
    cell = _by_cost(cost)
    n_rows, n_columns = cost.shape
    cell += np.repeat(np.arange(0, cost.size, n_columns), n_columns).reshape(n_rows, n_columns)
    prob, cost = prob.reshape(-1).take(cell), cost.reshape(-1).take(cell)
    on_hull, slope = _on_hull(prob, cost, cost_scale(cells))
    kept = slice(None) if on_hull.all() else np.flatnonzero(on_hull)
    cell = cell.reshape(-1)[kept]
    here = slice(used, used + cell.size)
    np.add(cell, block.start * n_columns, out=room.cell[here], casting="same_kind")
    room.point.real[here] = cost.reshape(-1)[kept]
    room.point.imag[here] = prob.reshape(-1)[kept]
    key = room.key[here]
    np.invert(slope.reshape(-1).view(np.int64)[kept], out=key)  # positive floats sort like ints
    key &= -1 << room.n_bits
    key |= np.arange(here.start, here.stop)
    return here.stop


def _readable(cells: Cells, block: slice) -> tuple[Floats, Floats]:
    """Return the prob and cost of a block; where forbidden, infinitely dear and never a rise."""
    prob, cost = cells.prob[block], cells.cost_usd[block]
    if cells.allowed is None:
        return prob, cost
    allowed = cells.allowed[block]
    return np.where(allowed, prob, -1.0), np.where(allowed, cost, np.inf)


def _by_cost(cost: Floats) -> Ints:
    """Return each query's columns by rising cost, then by number, (n_queries, n_columns).

    Sorting numbers is fast where the columns are nearly in order. Elsewhere sorting the costs
    themselves is faster, with the numbers in place of their last bits, unless those bits decide.
    """
    flat, n_columns = cost.reshape(-1), cost.shape[1]
    if np.count_nonzero(flat[1:] < flat[:-1]) > flat.size // 4:
        number = (1 << n_columns.bit_length()) - 1
        keys: Ints = (cost + 0.0).view(np.int64)  # -0.0 would be below 0.0
        keys &= ~number
        keys |= np.arange(n_columns)
        keys.sort(axis=1)
        in_line = keys.reshape(-1)
        if ((in_line[1:] ^ in_line[:-1]) > number).all():
            keys &= number
            return keys
    return np.argsort(cost, axis=1, kind="stable")


def _on_hull(prob: Floats, cost: Floats, scale: float) -> tuple[Bools, Floats]:
    """Tell which columns are vertices, and the slope to each from the vertex before.

    All are (n_queries, n_columns), each query's columns by rising cost.
    """
    slope, falls = _rises(prob, cost, scale), np.empty(prob.shape, np.bool_)
    flat = slope.reshape(-1)
    np.greater_equal(flat[:-1], flat[1:], out=falls.reshape(-1)[:-1])
    np.greater(slope[:, -1], 0.0, out=falls[:, -1])
    if falls.all():
        return falls, slope
    # Transposed, numpy's loops are thousands of queries long, and not a dozen columns.
    flattest_in, on_hull = _compared(
        prob.T.copy(), np.multiply(cost.T, scale, order="C"), slope.T.copy()
    )
    concave = np.flatnonzero(falls.T.copy().all(axis=0))
    on_hull[:, concave] = True  # no query's hull depends on its neighbours, not even in a last bit
    flattest_in[:, concave] = slope[concave].T
    return on_hull.T, flattest_in.T


def _rises(prob: Floats, cost: Floats, scale: float) -> Floats:
    """Return the slope to each column from the one before, `_STEEPEST` to each query's first."""
    slope = np.empty_like(prob)
    flat, p, c = slope.reshape(-1), prob.reshape(-1), cost.reshape(-1)
    run = c[1:] - c[:-1]  # from query to query, too: one pass
    run *= scale
    np.subtract(p[1:], p[:-1], out=flat[1:])
    flat[1:] /= run
    slope[:, 0] = _STEEPEST
    return slope


def _compared(prob: Floats, cost: Floats, slope: Floats) -> tuple[Floats, Bools]:
    """Return the flattest slope to each column from a cheaper one, and which are vertices.

    To a vertex the flattest slope is the one from the vertex before. Of equal costs, a higher
    probability further on is a rise for nothing, steeper than any; a lower or an equal one (0 / 0
    is NaN, which `minimum` passes on and `fmax` does not) is no vertex.

    Args:
        prob: (n_columns, n_queries), by rising cost.
        cost: likewise.
        slope: to each column from the one before, `_STEEPEST` to the first; overwritten.
    """
    flattest_in, steepest_out = slope, np.zeros_like(prob)
    np.fmax(steepest_out[:-1], slope[1:], out=steepest_out[:-1])
    np.minimum(slope, _STEEPEST, out=flattest_in)
    rises, runs = np.empty_like(prob), np.empty_like(prob)
    for distance in range(2, len(prob)):
        rise, run = rises[distance:], runs[distance:]
        np.subtract(prob[distance:], prob[:-distance], out=rise)
        np.subtract(cost[distance:], cost[:-distance], out=run)
        np.divide(rise, run, out=rise)
        np.minimum(flattest_in[distance:], rise, out=flattest_in[distance:])
        np.fmax(steepest_out[:-distance], rise, out=steepest_out[:-distance])
    return flattest_in, (flattest_in > 0.0) & (flattest_in >= steepest_out)
