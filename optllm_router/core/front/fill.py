"""What the money that is left at a point of the front still buys, one query at a time.

The front's points are the supported allocations; between two of them the budget leaves less than
one step's money over. `fill_up` spends it on single-query improvements, the steepest first, hull
or not, until none fits. The result is never worse than the point, and the point is less than one
query's gain below the optimum (REFERENCE: the LP relaxation splits at most one query).

A choice fits if the exact sum of its costs, rounded once, is at most the budget. To decide that
without adding everything up for each improvement, what is left is a pair of floats, a rounded sum
and its rounding error, and the budget is raised by what the last rounding takes off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optllm_router.core.front.cells import LARGEST_TOTAL_USD, Cells
from optllm_router.records import Bools, Floats, Ints

_BLOCK_CELLS = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class _Money:
    """An exact amount in USD: `high` is it rounded once, `low` what the rounding took off."""

    high: float
    low: float

    def fits(self, before: Floats, after: Floats) -> Bools:
        """Tell where replacing a cost by a higher one costs at most this."""
        extra = after - before
        rest = (
            after - extra
        ) - before  # exact where `after >= before`; elsewhere it does not count
        affordable: Bools = (extra < self.high) | ((extra == self.high) & (rest <= self.low))
        return affordable

    def less(self, after: Floats, before: Floats) -> _Money:
        """Return what is left when costs `before` become `after`."""
        return _exact([self.high, self.low, *before.tolist(), *(-after).tolist()])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Moves:
    """For some queries the steepest improvement that fits by itself, (n_moves,) each."""

    query: Ints
    column: Ints
    slope: Floats


def fill_up(cells: Cells, choice: Ints, budget_usd: float) -> tuple[Ints, float]:
    """Return the improved choice, and what is left of the budget (negative if it was too small).

    Args:
        cells: the matrices.
        choice: (n_queries,), a column per query; it is not changed.
        budget_usd: the most that the choice may cost in total, not negative.
    """
    choice = choice.copy()
    spent = cells.picked(cells.cost_usd, choice)
    usd = min(budget_usd, 2 * LARGEST_TOTAL_USD)
    left = _exact([usd, _rounded_off(usd)]).less(spent, spent[:0])
    open_rows = np.arange(choice.size)
    while open_rows.size and left.high >= 0.0:
        moves = _moves(cells, choice, open_rows, left)
        left = _take(cells, choice, moves, left)
        open_rows = moves.query  # where nothing fits now, nothing fits later with less money
    return choice, left.high


def best_within(cells: Cells, usd: float) -> tuple[Ints, Bools]:
    """Return each query's most probable column that costs at most `usd`, and where there is none.

    Ties go to the cheaper column, then to the first. A query without one gets its cheapest.
    """
    choices, missing = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)]
    for rows in _row_blocks(np.arange(len(cells.prob)), cells):
        prob, cost = cells.of_rows(rows)
        best, column = _pick(np.where(cost <= usd, prob, -1.0), cost)
        choices.append(column)
        missing.append(best < 0.0)
    return np.concatenate(choices), np.concatenate(missing)


def _exact(amounts: list[float]) -> _Money:
    """Add the amounts up, rounded once, and keep the rounding error."""
    high = math.fsum(amounts)
    return _Money(high=high, low=math.fsum([*amounts, -high]))


def _rounded_off(usd: float) -> float:
    """Return the largest excess that rounds down to `usd`: half a last bit, ties to even."""
    last_bit = math.ulp(usd)
    half = last_bit / 2.0
    return half if usd / last_bit % 2.0 == 0.0 else math.nextafter(half, 0.0)


def _row_blocks(rows: Ints, cells: Cells) -> list[Ints]:
    """Cut row numbers into pieces whose temporary matrices stay in cache."""
    size = max(1, _BLOCK_CELLS // max(1, cells.prob.shape[1]))
    return [rows[low : low + size] for low in range(0, rows.size, size)]


def _moves(cells: Cells, choice: Ints, open_rows: Ints, left: _Money) -> _Moves:
    """Find each open query's steepest improvement that fits, the steepest query first.

    Ties go to the cheaper column, then to the first; between queries to the first.
    """
    found = [_moves_of_block(cells, choice, rows, left) for rows in _row_blocks(open_rows, cells)]
    slope = np.concatenate([part.slope for part in found])
    order = np.argsort(-slope, kind="stable")
    return _Moves(
        query=np.concatenate([part.query for part in found])[order],
        column=np.concatenate([part.column for part in found])[order],
        slope=slope[order],
    )


def _moves_of_block(cells: Cells, choice: Ints, rows: Ints, left: _Money) -> _Moves:
    prob, cost = cells.of_rows(rows)
    here = (np.arange(rows.size), choice[rows])
    prob_here, cost_here = prob[here][:, None], cost[here][:, None]
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # forbidden: inf - inf
        gain, extra = prob - prob_here, cost - cost_here
        slope = np.where(extra > 0.0, gain / extra, np.inf)
        usable = (gain > 0.0) & left.fits(cost_here, cost)
    best, column = _pick(np.where(usable, slope, -1.0), cost)
    move = np.flatnonzero(best >= 0.0)
    return _Moves(query=rows[move], column=column[move], slope=best[move])


def _take(cells: Cells, choice: Ints, moves: _Moves, left: _Money) -> _Money:
    """Make the moves in their order, passing over those that no longer fit; return what is left."""
    before = cells.cost_usd[moves.query, choice[moves.query]]
    after = cells.cost_usd[moves.query, moves.column]
    pending = np.arange(moves.query.size)
    while pending.size:
        extra = np.cumsum(after[pending] - before[pending])
        n_taken = max(1, int(np.searchsorted(extra, left.high, side="right")))
        now, rest = _affordable(before, after, pending[:n_taken], left)
        choice[moves.query[now]] = moves.column[now]
        left = rest
        pending = pending[now.size :]
        pending = pending[left.fits(before[pending], after[pending])]
    return left


def _affordable(before: Floats, after: Floats, moves: Ints, left: _Money) -> tuple[Ints, _Money]:
    """Drop moves from the end until the others fit exactly; the first fits by itself."""
    while True:
        rest = left.less(after[moves], before[moves])
        if rest.high >= 0.0 or moves.size == 1:
            return moves, rest
        moves = moves[:-1]


def _pick(key: Floats, cost: Floats) -> tuple[Floats, Ints]:
    """Return each row's highest key and its column; ties to the cheaper, then to the first."""
    best = key.max(axis=1)
    among = key == best[:, None]
    if np.count_nonzero(among) > best.size:
        among &= cost == np.where(among, cost, np.inf).min(axis=1)[:, None]
    return best, among.argmax(axis=1)
