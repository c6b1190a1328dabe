"""What a user gets who asks for the best candidate's accuracy, or for some amounts of money.

A policy's allocation is computed once, on the whole test part; a resample counts the same choices
anew. An amount of a resample is the one of which the forecast takes the same share, so that known
costs are overspent in no resample.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.routing import Routed
from optllm_router.core.evaluation import BestSingle, best_single
from optllm_router.core.policy import Budget, Policy, TargetAccuracy
from optllm_router.records import Floats

N_AMOUNTS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """One policy's allocation: what each test query was forecast to cost, costs and scores.

    (n_test,) each, costs in USD. `asked` is an accuracy, or an amount in USD for all test queries.
    """

    asked: float
    forecast_usd: Floats
    cost_usd: Floats
    score: Floats

    def amount_usd(self, weight: Floats) -> float:
        """Return the amount for queries that count so often, (n_test,)."""
        whole = float(self.forecast_usd.sum())
        share = float(weight @ self.forecast_usd) / whole if whole > 0.0 else 0.0
        return self.asked * (share if share > 0.0 else float(weight.mean()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """All policies of a router: the target, where it can plan for one, and the budgets."""

    target: Served | None
    budgets: tuple[Served, ...]


def asked_of(routed: Routed, split: Split) -> Asked:
    """Allocate the test part by `TargetAccuracy`(best on the labelled part) and some budgets."""
    seen, test = split.labelled, split.test
    accuracy = float(seen.scores.mean(axis=0).max())
    can_plan = routed.plan is not None or routed.forecast_score is not None
    target = None
    if 0.0 < accuracy <= 1.0 and can_plan:
        target = _served(routed, TargetAccuracy(accuracy), test, accuracy)
    amounts = _amounts(seen, test.n_queries)
    return Asked(
        target=target, budgets=tuple(_served(routed, Budget(usd), test, usd) for usd in amounts)
    )


def policy_figures(asked: Asked, best: BestSingle, weight: Floats) -> dict[str, float]:
    """Return the policies' figures on queries that count so often, (n_test,), not all 0.

    `best` is their best single candidate.
    """
    figures: dict[str, float] = {}
    n = float(weight.sum())
    if asked.target is not None:
        score = float(weight @ asked.target.score) / n
        figures["target_shortfall"] = best.score - score
        figures["target_missed"] = asked.target.asked - score
        if best.cost_usd > 0.0:
            cost = float(weight @ asked.target.cost_usd)
            figures["target_saving"] = 1.0 - cost / best.cost_usd
    figures["budget_score"] = float(np.mean([weight @ one.score for one in asked.budgets])) / n
    figures["budget_overspend"] = float(np.mean([_over(one, weight) for one in asked.budgets]))
    return figures


def _over(one: Served, weight: Floats) -> float:
    return max(0.0, float(weight @ one.cost_usd) / one.amount_usd(weight) - 1.0)


def _amounts(seen: Problem, n_queries: int) -> Iterator[float]:
    """Budgets between the cheapest and the best candidate's labelled mean cost, geometric."""
    cost, best = seen.cost_usd.mean(axis=0), best_single(seen.scores, seen.cost_usd)
    low, high = float(cost.min()), best.cost_usd / seen.n_queries
    for usd in np.geomspace(max(low, 1e-12), max(high, 1e-12), N_AMOUNTS + 2)[1:-1]:
        yield float(usd) * n_queries


def _served(routed: Routed, policy: Policy, test: Problem, asked: float) -> Served:
    """Allocate by the router's plan, else take a point of its walk."""
    if routed.plan is not None:
        choice, each = routed.plan(policy), np.arange(test.n_queries)
        known = routed.cost_usd
        forecast = np.zeros(test.n_queries) if known is None else known[each, choice]
        cost, score = test.cost_usd[each, choice], test.scores[each, choice]
    else:
        point, walk = _point(routed, policy), routed.walk
        forecast = walk.forecast_each(point, test.n_queries)
        cost, score = walk.each(point, test.cost_usd), walk.each(point, test.scores)
    return Served(asked=asked, forecast_usd=forecast, cost_usd=cost, score=score)


def _point(routed: Routed, policy: Policy) -> int:
    """The point of a walk that a policy stands for by forecast, or the nearest to it."""
    if isinstance(policy, Budget):
        within = routed.walk.forecast_usd <= policy.usd * (1.0 + 1e-12)
        return int(np.flatnonzero(within)[-1]) if within.any() else 0
    if not isinstance(policy, TargetAccuracy) or routed.forecast_score is None:
        raise TypeError(f"{policy!r} is no policy that an evaluation asks for")
    reached = routed.forecast_score >= policy.accuracy
    return int(reached.argmax()) if reached.any() else int(routed.forecast_score.argmax())
