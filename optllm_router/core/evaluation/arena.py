"""RouterArena's figures: one score from accuracy and cost, and how near the choices are to ideal.

Source: Lu et al., RouterArena, arXiv 2510.00202, and the evaluation that its leaderboard runs. Its
robustness and latency need paraphrases and a clock, which outcome tables do not have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from optllm_router.core.evaluation.checks import outcomes, require_positive, require_share
from optllm_router.records import Floats, Ints

DEAREST_PER_1K_USD = 200.0
CHEAPEST_PER_1K_USD = 0.0044


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimality:
    """How close the choices come to an oracle's, each in [0, 1] and 1 the best.

    `selection` is Opt.Sel, `cost` Opt.Cost and `accuracy` Opt.Acc. `n_solvable` queries have a
    column that scores at all; of `n_solved` of them the choice scores as well as any.
    """

    selection: float
    cost: float
    accuracy: float
    n_solvable: int
    n_solved: int


def arena_score(accuracy: float, per_1k_usd: float, *, beta: float = 0.1) -> float:
    """Return S = (1 + beta) * A * C / (beta * A + C), which weighs accuracy against the cost.

    C = (log2 c_max - log2 c) / (log2 c_max - log2 c_min), with c the cost of 1,000 queries in USD,
    kept within c_min = .0044 and c_max = 200. S is 0 where A or C is.

    Args:
        accuracy: A, the mean score in [0, 1].
        per_1k_usd: c, above 0.
        beta: weight of the accuracy; the leaderboard's is .1.

    Raises:
        ValueError: An accuracy outside [0, 1], a cost or beta not above 0.
    """
    require_share("accuracy", accuracy)
    require_positive("per_1k_usd", per_1k_usd)
    require_positive("beta", beta)
    kept = min(max(per_1k_usd, CHEAPEST_PER_1K_USD), DEAREST_PER_1K_USD)
    cheapness = math.log2(DEAREST_PER_1K_USD / kept) / math.log2(
        DEAREST_PER_1K_USD / CHEAPEST_PER_1K_USD
    )
    if accuracy == 0.0 or cheapness == 0.0:
        return 0.0
    return (1.0 + beta) * accuracy * cheapness / (beta * accuracy + cheapness)


def optimality(choice: Ints, scores: ArrayLike, cost_usd: ArrayLike) -> Optimality:
    """Compare each choice with the cheapest of the query's best-scoring columns.

    With scores of 0 and 1 that column is the cheapest correct one. Queries that no column solves
    are left out. Opt.Sel: the share of the rest whose choice is that column, or as good and as
    cheap. Opt.Cost: the mean of its cost / the choice's cost, over the choices that score as well;
    cheap wrong choices would lift it above 1, so the leaderboard leaves them out too (it divides
    totals there; the mean of ratios is the paper's). Opt.Acc: the mean score of the choices / that
    of the best columns.

    Args:
        choice: column index per query, (n_queries,).
        scores: true scores in [0, 1], (n_queries, n_columns), each observed.
        cost_usd: true costs in USD, (n_queries, n_columns); a free choice has ratio 1.

    Returns:
        The figures; Opt.Cost is NaN where no choice scores as well as the best column.

    Raises:
        ValueError: Shapes that differ, a value out of range, a choice that is no column, or no
            query that any column solves.
    """
    score, cost = outcomes(scores, cost_usd)
    chosen = _cells_of(choice, score.shape)
    highest = score.max(axis=1)
    least = np.where(score == highest[:, None], cost, np.inf).min(axis=1)
    solvable = highest > 0.0
    if not solvable.any():
        raise ValueError(
            f"none of {len(score)} queries has a column that scores above 0, so no choice is "
            "optimal: leave these figures out."
        )
    solved = solvable & (score[chosen] == highest)
    return Optimality(
        selection=float((cost[chosen] == least)[solved].sum() / solvable.sum()),
        cost=_mean_ratio(least[solved], cost[chosen][solved]),
        accuracy=float(score[chosen].sum() / highest.sum()),
        n_solvable=int(solvable.sum()),
        n_solved=int(solved.sum()),
    )


def _mean_ratio(least_usd: Floats, cost_usd: Floats) -> float:
    if not cost_usd.size:
        return math.nan
    ratio = np.ones(cost_usd.size)
    np.divide(least_usd, cost_usd, out=ratio, where=cost_usd > 0.0)
    return float(ratio.mean())


def _cells_of(choice: Ints, shape: tuple[int, ...]) -> tuple[Ints, Ints]:
    n_queries, n_columns = shape
    columns = np.asarray(choice)
    if columns.shape != (n_queries,):
        raise ValueError(
            f"`choice` has shape {columns.shape}, but one column per query is needed, "
            f"({n_queries},): give the allocation of the same queries."
        )
    wrong = (columns < 0) | (columns >= n_columns)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"`choice[{row}]` is {int(columns[row])}, but `scores` has columns 0 to "
            f"{n_columns - 1}: count columns from 0."
        )
    return np.arange(n_queries), columns
