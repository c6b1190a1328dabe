"""Each query's upper-left convex hull of (cost, probability), all queries of a block at once.

A query's columns are sorted by cost, and those that are not more probable than every cheaper one
are dropped. Of what is left, every column under the line between its two neighbours is dropped, all
of them in one pass: both neighbours are real columns, so what lies under their line is on no hull.
The passes end when none is left, after a few of them; the only Python loops are over blocks and
passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.front.cells import Cells
from optllm_router.records import Bools, Floats, Ints

Codes = NDArray[np.unsignedinteger]  # column numbers in the smallest type that holds them

_BLOCK_CELLS = 2**16  # a few such arrays fit in a second-level cache
_SCALED_EXPONENT = 500  # costs are scaled to 2**500, so that no slope over- or underflows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Upgrades of single queries along their hulls, (n_steps,) each, in query order.

    `slope` is in successes per scaled cost: good for comparing only. It never rises along a hull.
    """

    query: NDArray[np.int32]
    source: Codes
    target: Codes
    slope: Floats


@dataclass(slots=True, kw_only=True, eq=False)
class _Hulls:
    """What is left of a block's columns, by query and cost; `first` marks each query's cheapest."""

    prob: Floats
    cost: Floats
    cell: Ints
    first: Bools


def hull_steps(cells: Cells) -> tuple[Codes, Steps]:
    """Return each query's cheapest column and the steps along all hulls.

    Of equally cheap columns the most probable starts, then the first. Collinear columns are steps
    of their own. A query whose cheapest column is its best has no step; an empty batch none at all.
    """
    n_queries, n_columns = cells.prob.shape
    codes = np.min_scalar_type(n_columns)
    scale = _scale(cells.largest_usd)
    size = max(1, _BLOCK_CELLS // max(1, n_columns))
    starts, parts = [np.zeros(0, codes)], [_no_steps(codes)]
    for low in range(0, n_queries, size):
        prob, cost = cells.scaled(slice(low, low + size), scale)
        hulls = _rising(prob, cost)
        slope = _only_hulls(hulls)
        row = hulls.cell // n_columns
        column = (hulls.cell - row * n_columns).astype(codes)
        starts.append(column[hulls.first])
        step = np.flatnonzero(~hulls.first)
        query = (row[step] + low).astype(np.int32)
        parts.append(
            Steps(query=query, source=column[step - 1], target=column[step], slope=slope[step])
        )
    return np.concatenate(starts), _joined(parts)


def _scale(largest_usd: float) -> float:
    """Return the power of two that brings the largest cost near 2**500: exact, so ties stay."""
    return math.ldexp(1.0, min(_SCALED_EXPONENT - math.frexp(largest_usd)[1], 1000))


def _rising(prob: Floats, cost: Floats) -> _Hulls:
    """Sort by cost, keep what is more probable than all before; equal cells keep the first."""
    n_rows, n_columns = prob.shape
    at = np.argsort(cost, axis=1, kind="stable")
    at += np.arange(0, n_rows * n_columns, n_columns)[:, None]
    prob = prob.reshape(-1).take(at)
    best = np.maximum.accumulate(prob, axis=1)
    rises = np.empty(prob.shape, dtype=np.bool_)
    rises[:, 0] = True
    np.greater(prob[:, 1:], best[:, :-1], out=rises[:, 1:])
    kept = np.flatnonzero(rises)  # taking by number is faster than by mask
    cell = at.reshape(-1).take(kept)
    return _Hulls(
        prob=prob.reshape(-1).take(kept),
        cost=cost.reshape(-1).take(cell),
        cell=cell,
        first=kept % n_columns == 0,
    )


def _only_hulls(hulls: _Hulls) -> Floats:
    """Drop all columns under their neighbours' line; return the slope that leads to each one left.

    Between equal costs the slope is infinite, so of these only the most probable stays, also
    where it is the cheapest of its query.
    """
    while True:
        slope = np.zeros(hulls.prob.size + 1)  # the last ends the last hull, as each first one does
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(np.diff(hulls.prob), np.diff(hulls.cost), out=slope[1:-1])
        firsts = np.flatnonzero(hulls.first)
        slope[firsts] = 0.0
        under = slope[:-1] < slope[1:]
        under[firsts] = np.isinf(slope[firsts + 1])
        kept = np.flatnonzero(~under)
        if kept.size == under.size:
            return slope
        hulls.first[firsts[under[firsts]] + 1] = True
        hulls.prob, hulls.cost = hulls.prob.take(kept), hulls.cost.take(kept)
        hulls.cell, hulls.first = hulls.cell.take(kept), hulls.first.take(kept)


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
