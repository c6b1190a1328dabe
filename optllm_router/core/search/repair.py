"""The reconstruction: trading the best upgrade of all queries for the best downgrade.

It stops where no upgrade is steeper than a downgrade, so that one price of accuracy makes every
query's column the best one for it: a supported point of the front.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from optllm_router.core.search.moves import Moves
from optllm_router.records import Floats, Ints

MARGIN = 1e-12
"""How much steeper, relatively, an upgrade must be than a downgrade to be traded for it.

Slopes of collinear columns differ in their last bits. Traded for those, queries could go round in
circles; no allocation gets better by it.
"""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Queue:
    """The cells that queries stand on, or stood on once, the best move first: a heap by key."""

    keys: memoryview
    targets: memoryview
    n_columns: int
    entries: list[tuple[float, int]]

    def best_key(self, at: list[int]) -> float:
        """Drop what nobody stands on any more; return the lowest key, infinite without any."""
        entries = self.entries
        while entries and at[entries[0][1] // self.n_columns] != entries[0][1]:
            heapq.heappop(entries)
        return entries[0][0] if entries else math.inf

    def take_ties(self, key: float, at: list[int]) -> list[int]:
        """Take out all cells of a key on which queries stand."""
        taken = []
        while self.entries and self.entries[0][0] == key:
            cell = heapq.heappop(self.entries)[1]
            if at[cell // self.n_columns] == cell:
                taken.append(cell)
        return taken

    def move(self, cells: list[int], at: list[int]) -> list[int]:
        """Move the queries from these cells; return their rows."""
        rows = [cell // self.n_columns for cell in cells]
        for row, cell in zip(rows, cells, strict=True):
            at[row] = self.targets[cell]
        return rows

    def add(self, cells: Iterable[int]) -> None:
        """Add the moves from some cells, where there are any."""
        for cell in cells:
            if self.targets[cell] >= 0:
                heapq.heappush(self.entries, (self.keys[cell], cell))


def repaired(moves: Moves, choice: Ints) -> tuple[Ints, int]:
    """Return the reconstruction of an allocation, and how many moves it took.

    All free improvements first; then, while the best upgrade is steeper than the best downgrade,
    both, with all their ties and the free improvements after them (step 5 of OptLLM's search). A
    query whose best upgrade and best downgrade are due together ends with the downgrade, which
    comes second. The steepest upgrade never gets steeper and the flattest downgrade never flatter:
    comparing the extremes so far, with a margin, keeps that true in floats, so that it ends.

    Args:
        moves: of the table of estimates that counts.
        choice: (n_queries,), a column per query; it is not changed.
    """
    standing = moves.standing(choice)
    ups = _queue(moves, moves.up_key, moves.up, standing)
    downs = _queue(moves, moves.down_key, moves.down, standing)
    at: list[int] = standing.tolist()
    steepest, flattest, n_moves = math.inf, 0.0, 0
    while True:
        up, down = ups.best_key(at), downs.best_key(at)
        steepest, flattest = min(steepest, -up), max(flattest, down)
        if steepest <= flattest * (1.0 + MARGIN):
            return moves.columns(np.array(at, np.int64)), n_moves
        rising, falling = ups.take_ties(up, at), downs.take_ties(down, at)
        rows = ups.move(rising, at) + downs.move(falling, at)
        n_moves += len(rows)
        cells = {at[row] for row in rows}
        ups.add(cells)
        downs.add(cells)


def brought_to(moves: Moves, choice: Ints, cost: Floats, limit: float) -> Ints:
    """Return the allocation after best upgrades while they fit, best downgrades while over a limit.

    One at a time, free improvements first, ties by query. It ends below the limit by less than one
    move; where even every query's cheapest column is over the limit, there.

    Args:
        moves: of the tables of estimates and costs.
        choice: (n_queries,), a column per query; it is not changed.
        cost: (n_queries, n_columns), what the limit is on.
        limit: the most that the exact sum of the costs, rounded once, may be.
    """
    costs = np.ascontiguousarray(cost).reshape(-1)
    raised = _raised(moves, moves.standing(choice), costs, limit)
    return moves.columns(_lowered(moves, raised, costs, limit))


def _raised(moves: Moves, standing: Ints, costs: Floats, limit: float) -> Ints:
    """Make the best upgrades until one does not fit; rounding may take it just over the limit."""
    ups = _queue(moves, moves.up_key, moves.up, standing)
    at: list[int] = standing.tolist()
    excess = _excess(costs, standing, limit)
    while ups.entries and excess < 0.0:
        cell = heapq.heappop(ups.entries)[1]
        excess += float(costs[moves.up[cell]] - costs[cell])
        if excess <= 0.0:
            ups.add(at[row] for row in ups.move([cell], at))
    return np.array(at, np.int64)


def _lowered(moves: Moves, standing: Ints, costs: Floats, limit: float) -> Ints:
    """Make the best downgrades while over the limit."""
    downs = _queue(moves, moves.down_key, moves.down, standing)
    at: list[int] = standing.tolist()
    excess = _excess(costs, standing, limit)
    while downs.entries and excess > 0.0:
        cell = heapq.heappop(downs.entries)[1]
        excess += float(costs[moves.down[cell]] - costs[cell])
        downs.add(at[row] for row in downs.move([cell], at))
        if excess <= 0.0:  # added up step by step: look exactly
            excess = _excess(costs, np.array(at, np.int64), limit)
    return np.array(at, np.int64)


def _queue(moves: Moves, keys: Floats, targets: Ints, standing: Ints) -> _Queue:
    """Return the queue of the queries' moves; a sorted list is a heap."""
    cells = standing[targets.take(standing) >= 0]
    cells = cells[np.argsort(keys.take(cells), kind="stable")]
    return _Queue(
        keys=keys.data,
        targets=targets.data,
        n_columns=moves.n_columns,
        entries=list(zip(keys.take(cells).tolist(), cells.tolist(), strict=True)),
    )


def _excess(costs: Floats, standing: Ints, limit: float) -> float:
    return math.fsum(costs.take(standing).tolist()) - limit
