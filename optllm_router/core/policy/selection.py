"""A policy applied to a front: refusing what cannot be had, or giving the nearest to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.core.front import TOLERANCE, ParetoFront
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
from optllm_router.core.policy.wording import did_you_mean, plain, quoted, usd_text
from optllm_router.errors import ConfigError, InfeasiblePolicyError
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Selection:
    """What a policy makes of a front.

    `point` is the front's point that `choice` stands on (a budget's choice may be better than its
    point), None where the choice stands on none; `choice` is the column of each query,
    (n_queries,); `reason` says why in a few words; `feasible` is False where `nearest` had to give
    less than was asked.
    """

    point: int | None
    choice: Ints
    reason: str
    feasible: bool = True


def select(
    policy: Policy,
    front: ParetoFront,
    *,
    honest_accuracy: Floats | None = None,
    columns: Sequence[str] = (),
) -> Selection:
    """Apply a policy to the front of a batch.

    An empty batch satisfies every policy, at point 0.

    Args:
        policy: what is wanted.
        front: the front of the batch.
        honest_accuracy: (n_points,), what each point is believed to reach, cross-fitted, or a lower
            bound of it; it need not rise along the front, NaN promises nothing. None takes the
            front's own accuracy, which flatters itself where the estimates are noisy.
        columns: the names of the front's columns, (n_columns,); only `Fixed` needs them.

    Raises:
        InfeasiblePolicyError: Nothing satisfies the policy; carries the nearest feasible value.
        ConfigError: `Fixed` names no column.
        ValueError: `honest_accuracy` or `columns` do not fit the front.
    """
    told = describe(policy)
    match policy:
        case Budget(usd=usd, per="call"):
            return Selection(point=None, choice=_within_each(front, usd), reason=told)
        case Budget(usd=usd):
            choice = front.fill(usd)
            spends = f"{told}: {usd_text(front.cost_of(choice))} USD expected"
            return Selection(point=front.at_budget(usd), choice=choice, reason=spends)
        case Fixed(column=column):
            return _fixed(front, _number_of(column, columns, front), told)
        case TargetAccuracy(accuracy=target):
            point = _cheapest_reaching(front, target, _honest(front, honest_accuracy))
        case _:
            point = _point_of(policy, front)
    return _standing(front, point, told)


def nearest(
    policy: Policy,
    front: ParetoFront,
    *,
    honest_accuracy: Floats | None = None,
    columns: Sequence[str] = (),
) -> Selection:
    """Apply a policy as `select` does, but give the nearest feasible choice instead of refusing.

    Below the cheapest allocation that is the cheapest; above the highest accuracy that is the
    cheapest point that comes highest. The reason says so, and `feasible` is False.

    Raises:
        ConfigError: `Fixed` names no column.
        ValueError: `honest_accuracy` or `columns` do not fit the front.
    """
    try:
        return select(policy, front, honest_accuracy=honest_accuracy, columns=columns)
    except InfeasiblePolicyError as error:
        reason = f"{describe(policy)} is out of reach, nearest is {plain(error.nearest)}"
    point: int | None = 0
    if isinstance(policy, TargetAccuracy):
        point = int(_honest(front, honest_accuracy).argmax())
    choice = front.choice(point or 0)
    if isinstance(policy, Budget) and policy.per == "call":
        point, choice = None, front.best_within(policy.usd)[0]
    return Selection(point=point, choice=choice, reason=reason, feasible=False)


def dual_price(
    policy: Policy, front: ParetoFront, *, honest_accuracy: Floats | None = None
) -> float:
    """Return what money is worth under a policy, in successes per USD, for single live requests.

    The price at the point of the front of recent traffic where the policy stands, or the nearest
    one. Infinite where nothing may be paid for accuracy: `Cheapest`, a budget below the cheapest
    allocation. Zero where cost does not count: `MostAccurate`, `Fixed` (for the queries that cannot
    use its column), and a budget per call, which caps each query instead.

    Raises:
        ValueError: `honest_accuracy` does not fit the front.
    """
    match policy:
        case Cheapest():
            return math.inf
        case WillingnessToPay():
            return policy.dual_price
        case MostAccurate() | Fixed() | Budget(per="call"):
            return 0.0
    selection = nearest(policy, front, honest_accuracy=honest_accuracy)
    if isinstance(policy, Budget) and not selection.feasible:
        return math.inf
    return front.price(selection.point or 0)


def _standing(front: ParetoFront, point: int, told: str) -> Selection:
    reason = f"{told}: point {point + 1} of {front.n_points}"
    return Selection(point=point, choice=front.choice(point), reason=reason)


def _point_of(policy: Policy, front: ParetoFront) -> int:
    """Return where a policy stands that every front can satisfy."""
    points: dict[type[Policy], Callable[[], int]] = {
        Knee: front.knee,
        Cheapest: lambda: 0,
        MostAccurate: lambda: front.n_points - 1,
    }
    if isinstance(policy, WillingnessToPay):
        return front.at_price(policy.dual_price)
    return points[type(policy)]()


def _within_each(front: ParetoFront, usd: float) -> Ints:
    choice, missing = front.best_within(usd)
    if missing.any():
        row = int(missing.argmax())
        nearest_usd = max(front.costs_of(choice)[missing].tolist())
        raise InfeasiblePolicyError(
            f"a budget of {usd_text(usd)} USD per call is too little for {int(missing.sum())} of "
            f"{front.n_queries} queries, the first in row {row}: the dearest of their cheapest "
            f"columns costs {nearest_usd!r} USD. Raise it to at least that, or leave them out.",
            asked=usd,
            nearest=nearest_usd,
        )
    return choice


def _fixed(front: ParetoFront, column: int, told: str) -> Selection:
    usable = front.can_use(column)
    if usable.all():
        return Selection(point=None, choice=np.full(front.n_queries, column), reason=told)
    choice = np.where(usable, column, front.choice(-1))
    others = f"{told}: {int((~usable).sum())} of {front.n_queries} queries cannot use it"
    return Selection(point=None, choice=choice, reason=others)


def _number_of(name: str, columns: Sequence[str], front: ParetoFront) -> int:
    if len(columns) != front.n_columns:
        raise ValueError(
            f"`columns` has {len(columns)} names for the front's {front.n_columns} columns: pass "
            "the name of each, in their order."
        )
    if name not in columns:
        raise ConfigError(
            f"the policy {describe(Fixed(name))} names no column{did_you_mean(name, columns)}: "
            f"the columns are {quoted(columns)}."
        )
    return list(columns).index(name)


def _honest(front: ParetoFront, honest_accuracy: Floats | None) -> Floats:
    """Return what each point promises; nothing (-1) where that is NaN."""
    if honest_accuracy is None:
        return front.accuracy
    honest = np.asarray(honest_accuracy, dtype=np.float64)
    if honest.shape != (front.n_points,):
        raise ValueError(
            f"`honest_accuracy` has shape {honest.shape}, but the front has {front.n_points} "
            "points: pass one accuracy per point."
        )
    return np.where(np.isnan(honest), -1.0, honest)


def _cheapest_reaching(front: ParetoFront, target: float, honest: Floats) -> int:
    """Return the first point whose honest accuracy reaches the target (see `TOLERANCE`)."""
    most = float(honest.max())
    if not front.n_queries:
        return 0
    if most < target * (1.0 - TOLERANCE):
        raise InfeasiblePolicyError(
            f"a target accuracy of {plain(target)} is above {most!r}, the highest that any point "
            "of the front promises: ask for at most that, add a stronger candidate, or collect "
            "more outcomes.",
            asked=target,
            nearest=most,
        )
    return int(np.argmax(honest >= min(target, most)))
