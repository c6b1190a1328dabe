"""The single-objective mode (OptLLM-S): one budget spent fully, or one accuracy reached.

Its authors name the stages (initialisation, evaluation, one destruction, one reconstruction,
refinement) but have released neither text nor code of the last. Here the refinement takes the best
upgrades while they fit, or the best downgrades while a limit is broken, and then any improvement
that the rest still allows. Both aims are one: least cost at an accuracy is most thrift within a
limit on what is lost, so the accuracy's refinement runs on the matrices swapped and negated.
"""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from optllm_router.core.front import TOLERANCE
from optllm_router.core.front.cells import Cells, checked
from optllm_router.core.front.fill import fill_up
from optllm_router.core.search.ends import best_choice, cheapest_choice, destroyed, total
from optllm_router.core.search.moves import checked_estimates, moves_of, readable
from optllm_router.core.search.repair import brought_to, repaired
from optllm_router.errors import InfeasiblePolicyError
from optllm_router.records import Ints


def spend_budget(
    prob: ArrayLike,
    cost_usd: ArrayLike,
    budget_usd: float,
    *,
    robust_prob: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
) -> Ints:
    """Return the column of each query, (n_queries,), that uses a budget until nothing more fits.

    From the most accurate allocation (by `robust_prob`): one destruction by cost that saves what is
    too much, one reconstruction (by `robust_prob`), then the refinement (by `prob`), after which no
    other column of a query raises its probability within the budget. Where the most accurate
    allocation is affordable, it is only refined. An empty batch has an empty choice.

    Args:
        prob: expected success probabilities in [0, 1], (n_queries, n_columns).
        cost_usd: expected costs in USD, finite and not negative, (n_queries, n_columns).
        budget_usd: the most that the batch may cost. The cheapest allocation is also taken for a
            budget below its cost by less than `TOLERANCE` of the front.
        robust_prob: p + alpha * sigma, any finite numbers, (n_queries, n_columns); None is `prob`.
        allowed: which columns can serve which query, as in `destroy_repair`.

    Raises:
        InfeasiblePolicyError: Even the cheapest allocation costs more; carries its cost.
        ValueError: `budget_usd` is NaN; a matrix as in `destroy_repair`.
        NoCandidateError: A row without any allowed column.
    """
    cells = checked(prob, cost_usd, allowed)
    robust = cells.prob
    if robust_prob is not None:
        robust = checked_estimates("robust_prob", robust_prob, cells)
    cheapest = cheapest_choice(cells)
    _require_budget(float(budget_usd), total(cells.cost_usd, cheapest))
    choice = best_choice(cells, robust)
    excess = total(cells.cost_usd, choice) - budget_usd
    if excess > 0.0:
        broken = destroyed(-readable(cells)[1], choice, excess)
        choice, _ = repaired(moves_of(cells, robust), cheapest if broken is None else broken)
    return _refined(cells, choice, float(budget_usd))


def reach_accuracy(
    prob: ArrayLike,
    cost_usd: ArrayLike,
    accuracy: float,
    *,
    allowed: ArrayLike | None = None,
) -> Ints:
    """Return the column of each query, (n_queries,), that reaches a mean `prob` and saves the rest.

    From the cheapest allocation: one destruction by accuracy that gains what is missing, one
    reconstruction, then the refinement, after which no other column of a query saves money without
    falling below the accuracy. Where the cheapest allocation reaches it, it is the answer. For an
    empty batch any accuracy holds. All by `prob`, as everything from the cheap end is.

    Args:
        prob: expected success probabilities in [0, 1], (n_queries, n_columns).
        cost_usd: expected costs in USD, finite and not negative, (n_queries, n_columns).
        accuracy: the least mean probability. The highest one is also taken for an accuracy above it
            by less than `TOLERANCE` of the front.
        allowed: which columns can serve which query, as in `destroy_repair`.

    Raises:
        InfeasiblePolicyError: No allocation reaches it; carries the highest mean probability.
        ValueError: `accuracy` is NaN; a matrix as in `destroy_repair`.
        NoCandidateError: A row without any allowed column.
    """
    cells = checked(prob, cost_usd, allowed)
    best = best_choice(cells, cells.prob)
    _require_accuracy(float(accuracy), total(cells.prob, best), best.size)
    needed = _least_sum(float(accuracy), best.size)
    choice = cheapest_choice(cells)
    missing = needed - total(cells.prob, choice)
    if missing > 0.0:
        broken = destroyed(readable(cells)[0], choice, missing)
        choice, _ = repaired(moves_of(cells), best if broken is None else broken)
    return _refined(_mirrored(cells), choice, -needed)


def _refined(cells: Cells, choice: Ints, limit: float) -> Ints:
    """Return the choice brought to a limit on the cost, and improved until nothing fits."""
    within = brought_to(moves_of(cells), choice, cells.cost_usd, limit)
    return fill_up(cells, within, limit)[0]


def _mirrored(cells: Cells) -> Cells:
    """Return minus the cost as what to raise, and minus the probability as what is limited."""
    return Cells(prob=-cells.cost_usd, cost_usd=-cells.prob, allowed=cells.allowed, largest_usd=1.0)


def _least_sum(accuracy: float, n_queries: int) -> float:
    """Return the least sum of probabilities whose mean, as computed, reaches an accuracy."""
    if not n_queries or accuracy <= 0.0:
        return 0.0
    least = accuracy * n_queries
    while least / n_queries >= accuracy:
        least = math.nextafter(least, 0.0)
    while least / n_queries < accuracy:
        least = math.nextafter(least, math.inf)
    return least


def _require_budget(usd: float, least: float) -> None:
    _require_number("budget_usd", usd)
    if usd < least * (1.0 - TOLERANCE):
        raise InfeasiblePolicyError(
            f"a budget of {usd:.10g} USD is below {least!r} USD, the cost of sending every query "
            "to its cheapest column: raise it to at least that, or allow a cheaper candidate.",
            asked=usd,
            nearest=least,
        )


def _require_accuracy(accuracy: float, most_sum: float, n_queries: int) -> None:
    _require_number("accuracy", accuracy)
    most = most_sum / max(n_queries, 1)
    if n_queries and accuracy * (1.0 - TOLERANCE) > most:
        raise InfeasiblePolicyError(
            f"an accuracy of {accuracy:.10g} is above {most!r}, which the most accurate column of "
            "every query reaches: ask for at most that, or add a stronger candidate.",
            asked=accuracy,
            nearest=most,
        )


def _require_number(name: str, value: float) -> None:
    if math.isnan(value):
        raise ValueError(f"`{name}` is NaN, but a number is needed: check how it was computed.")
