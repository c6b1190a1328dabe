"""A policy applied to the points that OptLLM's search finds, instead of to the exact front.

For comparison, and for who wants the paper's behaviour: a budget is spent and an accuracy reached
by its single-objective mode; any other policy takes the best point that destruction and
reconstruction have found. What is no choice between points (`Fixed`, a budget per call) is as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.core.front import ParetoFront
from optllm_router.core.policy.kinds import (
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    Policy,
    TargetAccuracy,
    WillingnessToPay,
    describe,
)
from optllm_router.core.policy.selection import Selection, select
from optllm_router.core.search import SearchResult, destroy_repair, reach_accuracy, spend_budget
from optllm_router.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Searched:
    """What is searched, (n_queries, n_columns) each; cells that are not allowed are not read.

    `robust_prob` is OptLLM's `p + alpha * sigma`.
    """

    prob: Floats
    robust_prob: Floats
    cost_usd: Floats
    allowed: Bools


def select_searched(
    policy: Policy,
    table: Searched,
    front: ParetoFront,
    *,
    honest_accuracy: Floats | None = None,
    columns: Sequence[str] = (),
) -> Selection:
    """Apply a policy as `select` does, but choose what the search finds.

    `point` is the exact front's last point within the choice's cost: what a plan's price and
    optimism are read off. A target is as much of the table's own accuracy as the exact front needs
    to reach it honestly. Of equally good points the cheapest is taken.

    Args:
        policy: what is wanted.
        table: the estimates of the batch.
        front: the exact front of the same estimates.
        honest_accuracy: as for `select`.
        columns: as for `select`.

    Raises:
        InfeasiblePolicyError: Nothing satisfies the policy; carries the nearest feasible value.
        ConfigError: `Fixed` names no column.
        ValueError: what is given does not fit the front.
    """
    exact = select(policy, front, honest_accuracy=honest_accuracy, columns=columns)
    match policy:
        case Fixed() | Budget(per="call"):
            return exact
        case Budget(usd=usd):
            choice, told = _spent(table, usd), "spent by destroy and repair"
        case TargetAccuracy():
            needed = float(front.accuracy[exact.point or 0])
            choice, told = _reached(table, needed), "reached by destroy and repair"
        case _:
            choice, told = _best_found(policy, table)
    point = front.at_budget(front.cost_of(choice))
    return Selection(point=point, choice=choice, reason=f"{describe(policy)}: {told}")


def _spent(table: Searched, usd: float) -> Ints:
    return spend_budget(
        table.prob, table.cost_usd, usd, robust_prob=table.robust_prob, allowed=table.allowed
    )


def _reached(table: Searched, accuracy: float) -> Ints:
    return reach_accuracy(table.prob, table.cost_usd, accuracy, allowed=table.allowed)


def _best_found(policy: Policy, table: Searched) -> tuple[Ints, str]:
    found = destroy_repair(
        table.prob, table.cost_usd, robust_prob=table.robust_prob, allowed=table.allowed
    )
    best = int(np.argmax(_worth(policy, found)))
    return found.choice[best], f"point {best + 1} of {len(found.choice)} by destroy and repair"


def _worth(policy: Policy, found: SearchResult) -> Floats:
    """What a policy thinks of every point found, from the cheapest to the dearest, (n_points,)."""
    cost, accuracy = found.cost_usd, found.accuracy
    match policy:
        case Cheapest():
            return np.asarray(-cost)
        case MostAccurate():
            return accuracy
        case WillingnessToPay(dual_price=price):
            return np.asarray(accuracy * found.choice.shape[1] - price * cost)
        case Knee():
            return _above_line(cost - cost[0], accuracy - accuracy[0])
    raise TypeError(f"{policy!r} does not choose between points")


def _above_line(cost: Floats, gain: Floats) -> Floats:
    """How far each point is above the line between the ends, both axes scaled to [0, 1]."""
    if cost.size < 3:
        return np.asarray(-cost)
    return np.asarray(gain / gain[-1] - cost / cost[-1])
