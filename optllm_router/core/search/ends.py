"""The walk from both ends of the front: OptLLM's multi-objective search (OptLLM-M)."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.front.cells import Cells, checked
from optllm_router.core.search.moves import Moves, checked_estimates, moves_of, readable
from optllm_router.core.search.repair import repaired
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SearchResult:
    """The allocations that the search kept, from the cheapest to the dearest.

    `choice` is (n_points, n_queries), a column per query; `cost_usd` (n_points,) the total cost of
    each, `accuracy` (n_points,) its mean `prob`, both strictly increasing (`accuracy` may fall
    where the released code's filter was asked for). `n_destructions` and `n_moves` count the
    destructions and the upgrades and downgrades of all reconstructions.
    """

    choice: Ints
    cost_usd: Floats
    accuracy: Floats
    n_destructions: int
    n_moves: int


def destroy_repair(  # noqa: PLR0913  # the published method's own parameters, by keyword
    prob: ArrayLike,
    cost_usd: ArrayLike,
    *,
    robust_prob: ArrayLike | None = None,
    grid: int = 50,
    allowed: ArrayLike | None = None,
    as_released: bool = False,
) -> SearchResult:
    """Search the front from both ends by destruction and reconstruction, as OptLLM does.

    Liu et al. 2024 (arXiv 2405.15130), optimisation component. From the cheapest allocation,
    repeatedly: send the queries that gain most to their most probable column until 1 / grid of the
    accuracy between the ends is gained (by `prob`), then reconstruct. From the most accurate one
    (by `robust_prob`): send those that save most to their cheapest column until 1 / grid of the
    cost between the ends is saved, then reconstruct (by `robust_prob`). At most grid - 1 times from
    each end; an end stops early where the rest of its queries cannot reach the step, or where a
    reconstruction returns to where it began. Both ends and all reconstructions are scored with
    `prob`, and of those that none dominates the first found stays.

    Defects of the released code. Behind `as_released`: the reconstructions from the dear end are
    scored with `robust_prob`, the others with `prob`, and all are filtered together. Never
    reproduced: an error where no downgrade is left, free improvements made only once before the
    first trade, and the wrong column where a query has several equally good ones. The other
    published defects are the predictor's (weights from mislabelled validation, members that saw one
    class only), the protocol's (realised costs known beforehand, ten repeats of one run) or the
    metrics' (a "true" front that is none, unscaled distances), and are found there.

    Args:
        prob: expected success probabilities in [0, 1], (n_queries, n_columns).
        cost_usd: expected costs in USD, finite and not negative, (n_queries, n_columns).
        robust_prob: p + alpha * sigma, any finite numbers, (n_queries, n_columns); None is `prob`.
        grid: GN, into how many steps the way between the ends is cut, at least 1.
        allowed: which columns can serve which query, (n_queries, n_columns) of bool; None allows
            all. Cells that are not allowed are not read.
        as_released: whether to reproduce the released code's filter.

    Returns:
        At most 2 * grid allocations, one of the least cost among them. With one table of
        estimates all are supported points of the exact front, the most accurate one among them. An
        empty batch has one point of cost 0 and accuracy 0.

    Raises:
        ValueError: Shapes that differ; a value out of range, with its row and column; a `grid`
            below 1.
        NoCandidateError: A row without any allowed column.
    """
    cells = checked(prob, cost_usd, allowed)
    n_steps = _checked_grid(grid)
    robust = cells.prob
    moves = robust_moves = moves_of(cells)
    if robust_prob is not None:
        robust = checked_estimates("robust_prob", robust_prob, cells)
        robust_moves = moves_of(cells, robust)
    ends = cheapest_choice(cells), best_choice(cells, robust)
    probs, cost = readable(cells)
    rising = _walk(moves, ends[0], probs, _gap(cells.prob, *ends) / n_steps, n_steps)
    falling = _walk(robust_moves, ends[1], -cost, _gap(cells.cost_usd, *ends) / n_steps, n_steps)
    scored = [(choice, cells.prob) for choice in (*ends, *rising.found)]
    scored += [(choice, robust if as_released else cells.prob) for choice in falling.found]
    choice = _nondominated(scored, cells.cost_usd)
    return SearchResult(
        choice=choice,
        cost_usd=np.array([total(cells.cost_usd, point) for point in choice]),
        accuracy=np.array([total(cells.prob, point) for point in choice]) / max(len(cells.prob), 1),
        n_destructions=len(rising.found) + len(falling.found),
        n_moves=rising.n_moves + falling.n_moves,
    )


def cheapest_choice(cells: Cells) -> Ints:
    """Return each query's cheapest column; ties: the most probable, then the first."""
    probs, cost = readable(cells)
    return _first_best(-cost, probs)


def best_choice(cells: Cells, prob: Floats) -> Ints:
    """Return each query's most probable column by a table; ties: the cheapest, then the first."""
    probs, cost = readable(cells, prob)
    return _first_best(probs, -cost)


def destroyed(values: Floats, choice: Ints, step: float) -> Ints | None:
    """Send the queries that gain most to their best column, until the gains add up to a step.

    The largest gain first, ties by query; within a query the first column of the best.

    Args:
        values: what a query is worth on each column, (n_queries, n_columns): the probability, or
            minus the cost.
        choice: (n_queries,), a column per query; it is not changed.
        step: how much the gains must add up to; the query that reaches it is the last.

    Returns:
        The new allocation; None where all gains together do not reach the step.
    """
    rows = np.arange(choice.size)
    gains = values - values[rows, choice][:, None]
    column = gains.argmax(axis=1) if gains.size else choice
    gain = gains[rows, column]
    order = np.argsort(-gain, kind="stable")[: np.count_nonzero(gain > 0.0)]
    reached = np.cumsum(gain[order]) >= step
    if not reached.any():
        return None
    sent = order[: int(reached.argmax()) + 1]
    new = choice.copy()
    new[sent] = column[sent]
    return new


def total(values: Floats, choice: Ints) -> float:
    """Return the sum of the chosen cells, rounded once."""
    return math.fsum(values[np.arange(choice.size), choice].tolist())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Walk:
    """The reconstructions from one end, in their order, and how many moves they took."""

    found: list[Ints]
    n_moves: int


def _walk(moves: Moves, start: Ints, values: Floats, step: float, n_steps: int) -> _Walk:
    """Destroy and reconstruct from an end, n_steps - 1 times or until nothing new can come."""
    found: list[Ints] = []
    choice, n_moves = start, 0
    for _ in range(n_steps - 1):
        broken = destroyed(values, choice, step)
        if broken is None:
            break
        mended, n_more = repaired(moves, broken)
        n_moves += n_more
        found.append(mended)
        if (mended == choice).all():
            break  # every further round would be this one again
        choice = mended
    return _Walk(found=found, n_moves=n_moves)


def _first_best(key: Floats, tie: Floats) -> Ints:
    """Return each row's column of the highest key; ties: of the highest second key, the first."""
    if not key.size:
        return np.zeros(len(key), np.int64)
    among = key == key.max(axis=1)[:, None]
    first: Ints = np.where(among, tie, -np.inf).argmax(axis=1)
    return first


def _gap(values: Floats, low: Ints, high: Ints) -> float:
    return total(values, high) - total(values, low)


def _nondominated(scored: list[tuple[Ints, Floats]], cost_usd: Floats) -> Ints:
    """Return the allocations that none dominates by its own table, (n_points, n_queries).

    Of those alike in both objectives the first stays.
    """
    costs = np.array([total(cost_usd, choice) for choice, _ in scored])
    sums = np.array([total(table, choice) for choice, table in scored])
    order = np.lexsort((-sums, costs))
    best_before = np.append(-np.inf, np.maximum.accumulate(sums[order])[:-1])
    return np.array([scored[k][0] for k in order[sums[order] > best_before]], np.int64)


def _checked_grid(grid: int) -> int:
    n_steps = operator.index(grid)
    if n_steps < 1:
        raise ValueError(
            f"`grid` is {n_steps}, but the way between the ends is cut into at least 1 step: "
            "the papers use 50."
        )
    return n_steps
