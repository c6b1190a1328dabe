"""Who may be asked for one query, and in which order: the plan's column, then the next best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from optllm_router.core.estimates import Estimates, Estimator
from optllm_router.core.planning import Choice
from optllm_router.records import NANO_PER_USD, Candidate, Floats, Query

Forecast: TypeAlias = Callable[[], int | None]  # in nano-USD, None where nothing is known


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A candidate that may be asked, what that costs at worst, and what it is forecast to cost.

    `worst_nusd` is None for a pin of unknown price. The `forecast` is only worked out for a call
    that is written ahead or lost.
    """

    candidate: Candidate
    worst_nusd: int | None
    forecast: Forecast = field(compare=False, repr=False)


def preferences(estimates: Estimates, row: int, planned: int, price: float | None) -> list[int]:
    """The planned column, then the other allowed ones by value at a dual price (None: infinite).

    Where none is allowed, the able ones instead, the dearest first.
    """
    columns = np.flatnonzero(estimates.allowed[row])
    cost: Floats = estimates.cost_usd[row]
    if not columns.size:
        columns = np.flatnonzero(estimates.able[row])
        order = columns[np.argsort(-estimates.worst_nusd[row][columns], kind="stable")]
    elif price is None:
        order = columns[np.argsort(cost[columns], kind="stable")]
    else:
        value = estimates.prob[row] - price * cost
        order = columns[np.argsort(-value[columns], kind="stable")]
    return [planned, *(int(column) for column in order if column != planned)]


def other_offers(
    candidates: Sequence[Candidate], estimates: Estimates, choice: Choice
) -> list[Offer]:
    """Who else may be asked: the allowed columns by value, then those that are merely able."""
    order = preferences(estimates, 0, choice.column, choice.dual_price)
    able = np.flatnonzero(estimates.able[0] & ~estimates.allowed[0])
    by_price = able[np.argsort(-estimates.worst_nusd[0][able], kind="stable")]
    columns = dict.fromkeys([*order, *(int(column) for column in by_price)])
    return [
        _offer(candidates[column], estimates, column)
        for column in columns
        if column != choice.column
    ]


def _offer(candidate: Candidate, estimates: Estimates, column: int) -> Offer:
    return Offer(
        candidate=candidate,
        worst_nusd=int(estimates.worst_nusd[0, column]),
        forecast=lambda: in_nusd(float(estimates.cost_usd[0, column])),
    )


def forecast_nusd(
    known: Sequence[Candidate], estimator: Estimator, candidate: Candidate, query: Query
) -> int | None:
    """Return what a call that nobody chose (a pin, a shadowed one) is forecast to cost.

    By what was learned where the candidate is among the `known` ones, the estimator's; None where
    its price is unknown.
    """
    for column, each in enumerate(known):
        if each.name == candidate.name and each.price == candidate.price:
            return in_nusd(float(estimator.forecast_usd([query])[0, column]))
    return in_nusd(float(Estimator(None, [candidate]).forecast_usd([query])[0, 0]))


def in_nusd(cost_usd: float) -> int | None:
    """Return a forecast in nano-USD, rounded up; None where it is NaN or infinite."""
    return math.ceil(cost_usd * NANO_PER_USD) if math.isfinite(cost_usd) else None
