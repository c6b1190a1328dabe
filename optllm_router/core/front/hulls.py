"""Each query's upper-left convex hull of (cost, probability), all queries of a block at once.

The hull is walked like wrapping a gift: from the cheapest column go to the column with the
steepest rise, and so on until nothing rises. A block of queries walks together, one numpy pass
per step, so that the only Python loops are over blocks and over steps (at most n_columns of them).

A column that costs no more than the current one never has a higher probability: its rise from the
vertex before would have been at least as steep, and of equally steep columns the cheapest is
taken, then the most probable, then the first. This holds in floats too, because subtraction and
division round monotonically; it is why a cost difference that is not positive needs no mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.front.cells import Cells
from optllm_router.records import Bools, Floats

Codes = NDArray[np.unsignedinteger]  # column numbers in the smallest type that holds them

_BLOCK_CELLS = 45_000  # hides numpy's overhead; larger temporaries go back to the system each time
_SCALED_EXPONENT = 500  # costs are scaled to 2**500, so that no slope over- or underflows
_TINY = 2.0**-800  # below every scaled cost difference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Upgrades of single queries along their hulls, (n_steps,) each, every hull in its order.

    `slope` is in successes per scaled cost: good for comparing only. It never rises along a hull.
    """

    query: NDArray[np.int32]
    source: Codes
    target: Codes
    slope: Floats


@dataclass(slots=True, kw_only=True, eq=False)
class _Walk:
    """Where the queries of a block stand; matrices are (n_columns, n_walking), columns first."""

    prob: Floats
    cost: Floats
    rows: NDArray[np.int32]
    at: Codes
    slope: Floats


def hull_steps(cells: Cells) -> tuple[Codes, Steps]:
    """Return each query's cheapest column and the steps along all hulls, queries in no order.

    Of equally cheap columns the most probable starts, then the first. Collinear columns are steps
    of their own. A query whose cheapest column is its best has no step; an empty batch none at all.
    """
    n_queries, n_columns = cells.prob.shape
    codes = np.min_scalar_type(n_columns)
    scale = _scale(cells.largest_usd)
    size = max(1, _BLOCK_CELLS // max(1, n_columns))
    starts, parts = [np.zeros(0, codes)], [_no_steps(codes)]
    for low in range(0, n_queries, size):
        walk = _start(cells, slice(low, min(low + size, n_queries)), scale)
        starts.append(walk.at)
        parts += _layers(walk)
    return np.concatenate(starts), _joined(parts)


def _scale(largest_usd: float) -> float:
    """Return the power of two that brings the largest cost near 2**500: exact, so ties stay."""
    return math.ldexp(1.0, min(_SCALED_EXPONENT - math.frexp(largest_usd)[1], 1000))


def _start(cells: Cells, block: slice, scale: float) -> _Walk:
    """Put every query of a block on its cheapest column; forbidden ones are infinitely dear."""
    prob = np.array(cells.prob[block].T, order="C")
    with np.errstate(over="ignore"):  # a forbidden cell may hold anything
        cost = np.multiply(cells.cost_usd[block].T, scale, order="C")
    if cells.allowed is not None:
        forbidden = ~cells.allowed[block].T
        prob[forbidden], cost[forbidden] = -1.0, np.inf
    _, at = _pick(-cost, cost, prob)
    rows = np.arange(block.start, block.stop, dtype=np.int32)
    return _Walk(prob=prob, cost=cost, rows=rows, at=at, slope=np.full(at.size, np.inf))


def _layers(walk: _Walk) -> list[Steps]:
    """Walk a block to the end of its hulls; one layer holds each query's next step, if any."""
    layers: list[Steps] = []
    while True:
        best, target = _steepest(walk)
        rising = best > 0.0
        n_rising = int(np.count_nonzero(rising))
        if not n_rising:
            return layers
        # Near-collinear steps may round to a rise in slope: the sort must keep a hull's order.
        walk.slope = np.minimum(walk.slope, best)
        moved = slice(None) if n_rising == rising.size else np.flatnonzero(rising)
        layers.append(
            Steps(
                query=walk.rows[moved],
                source=walk.at[moved],
                target=target[moved],
                slope=walk.slope[moved],
            )
        )
        _advance(walk, rising, target, leave=2 * n_rising < rising.size)


def _steepest(walk: _Walk) -> tuple[Floats, Codes]:
    """Return each query's steepest rise from where it stands, and the column it leads to."""
    n_walking = walk.rows.size
    here = walk.at * np.intp(n_walking) + np.arange(n_walking)
    rise = walk.prob - walk.prob.reshape(-1).take(here)
    run = walk.cost - walk.cost.reshape(-1).take(here)
    # A row, not a scalar: numpy's scalar maximum is three times as slow. No run, no rise: see top.
    np.maximum(run, np.full(n_walking, _TINY), out=run)
    np.divide(rise, run, out=rise)
    return _pick(rise, walk.cost, walk.prob)


def _pick(key: Floats, cost: Floats, prob: Floats) -> tuple[Floats, Codes]:
    """Return each query's highest key and its column, (n_walking,) each.

    Ties go to the cheapest column, then to the most probable, then to the first.
    """
    best = key.max(axis=0)
    among = key == best
    if np.count_nonzero(among) > best.size:
        among &= cost == np.where(among, cost, np.inf).min(axis=0)
        among &= prob == np.where(among, prob, -1.0).max(axis=0)
    return best, _first(among)


def _first(mask: Bools) -> Codes:
    """Return the first true column of each query; several times as fast as `argmax`."""
    n_columns = mask.shape[0]
    countdown = np.arange(n_columns, 0, -1).astype(np.min_scalar_type(n_columns))[:, None]
    found: Codes = countdown[0, 0] - (mask.view(np.uint8) * countdown).max(axis=0)
    return found


def _advance(walk: _Walk, rising: Bools, target: Codes, *, leave: bool) -> None:
    """Move the rising queries on; where most have finished, copy the others out (`leave`)."""
    if not leave:
        walk.at = np.where(rising, target, walk.at)
        return
    keep = np.flatnonzero(rising)
    walk.prob, walk.cost = walk.prob[:, keep], walk.cost[:, keep]
    walk.rows, walk.slope, walk.at = walk.rows[keep], walk.slope[keep], target[keep]


def _no_steps(codes: np.dtype[np.unsignedinteger]) -> Steps:
    none = np.zeros(0, codes)
    return Steps(query=np.zeros(0, np.int32), source=none, target=none, slope=np.zeros(0))


def _joined(parts: list[Steps]) -> Steps:
    return Steps(
        query=np.concatenate([part.query for part in parts]),
        source=np.concatenate([part.source for part in parts]),
        target=np.concatenate([part.target for part in parts]),
        slope=np.concatenate([part.slope for part in parts]),
    )
