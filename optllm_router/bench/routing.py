"""What every router of an evaluation gets and gives, and what several of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.walks import FrontWalk, Walk
from optllm_router.core.amounts import AmountForecast
from optllm_router.core.estimates import Estimates
from optllm_router.core.features import SparseText
from optllm_router.core.front import pareto_front
from optllm_router.core.planning import plan_batch
from optllm_router.core.policy import Budget, MostAccurate, Policy, TargetAccuracy
from optllm_router.core.projection import Projection
from optllm_router.core.snapshot import Optimism
from optllm_router.errors import InfeasiblePolicyError
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routed:
    """What a router makes of the test part.

    `forecast_score` (n_points,) is the mean score that it expects at every point of its walk;
    `prob` and `cost_usd` (n_test, n_candidates) are its estimates, where it has any; `plan` gives
    the allocation that a policy chooses, where that is not simply a point of the walk.
    """

    walk: Walk
    forecast_score: Floats | None = None
    prob: Floats | None = None
    cost_usd: Floats | None = None
    plan: Callable[[Policy], Ints] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The terms on which all routers of an evaluation run.

    With `oracle_costs` they are told what each test answer will cost, as the papers do.
    """

    oracle_costs: bool = False
    n_bootstraps: int = 20


BuildRouter = Callable[[Split, Terms], Routed]


def forecast_costs(split: Split, terms: Terms) -> Floats:
    """Forecast every test query's cost at every candidate in USD, by prompt length and task."""
    if terms.oracle_costs:
        return split.test.cost_usd
    seen = split.labelled
    forecast = AmountForecast.fit(seen.cost_usd, seen.prompt_tokens, seen.tasks)
    return forecast.predict(split.test.prompt_tokens, split.test.tasks)


def routed_by(
    prob: Floats, cost_usd: Floats, candidates: Sequence[str], *, optimism: Optimism | None = None
) -> Routed:
    """Return the exact front over estimates, (n_test, n_candidates) each, with its policies."""
    prob = np.clip(prob, 0.0, 1.0)
    front = pareto_front(prob, cost_usd)
    estimates = given_estimates(prob, cost_usd, candidates)
    return Routed(
        walk=FrontWalk(front),
        forecast_score=front.accuracy,
        prob=prob,
        cost_usd=cost_usd,
        plan=lambda policy: planned(estimates, policy, optimism),
    )


def planned(estimates: Estimates, policy: Policy, optimism: Optimism | None) -> Ints:
    """Plan the batch; an amount or a target that is out of reach is replaced by the nearest."""
    try:
        return plan_batch(estimates, policy, optimism).choice
    except InfeasiblePolicyError as error:
        nearest = nearest_feasible(policy, error.nearest)
        return plan_batch(estimates, nearest, optimism).choice


def nearest_feasible(policy: Policy, nearest: float) -> Policy:
    """Return a policy with its amount or target replaced. Raises: TypeError for others.

    Where no accuracy above 0 is expected, which is no target, the most accurate allocation.
    """
    if isinstance(policy, TargetAccuracy):
        return replace(policy, accuracy=nearest) if nearest > 0.0 else MostAccurate()
    if isinstance(policy, Budget):
        return replace(policy, usd=nearest)
    raise TypeError(f"{policy!r} has no amount and no target: it is always feasible")


def given_estimates(prob: Floats, cost_usd: Floats, candidates: Sequence[str]) -> Estimates:
    """Return estimates that come from elsewhere, every candidate allowed everywhere."""
    everywhere = np.ones(prob.shape, dtype=np.bool_)
    return Estimates(
        columns=tuple(candidates),
        prob=prob,
        std=np.full(prob.shape, np.nan),
        cost_usd=cost_usd,
        worst_nusd=np.full(prob.shape, np.iinfo(np.int64).max),
        able=everywhere,
        allowed=everywhere,
        reasons=tuple({} for _ in range(len(prob))),
    )


def text_components(split: Split, n_components: int) -> tuple[Floats, Floats]:
    """Project labelled and test texts on the labelled ones' principal components."""
    projection = Projection.fit(_distinct(split.labelled), n_components, split.seed)
    return projection.apply(split.labelled.features), projection.apply(split.test.features)


def with_tasks(split: Split, n_components: int) -> tuple[Floats, Floats]:
    """Return design matrices of labelled and test part: intercept, text components, tasks."""
    seen, asked = text_components(split, n_components)
    tasks = sorted({task for task in split.labelled.tasks if task})
    return _designed(split.labelled, seen, tasks), _designed(split.test, asked, tasks)


def _designed(problem: Problem, components: Floats, tasks: Sequence[str]) -> Floats:
    is_of = np.array([[task == name for name in tasks] for task in problem.tasks], dtype=np.float64)
    one = np.ones((problem.n_queries, 1))
    return np.hstack([one, components, is_of.reshape(problem.n_queries, len(tasks))])


def _distinct(problem: Problem) -> list[SparseText]:
    _, first = np.unique(problem.group, return_index=True)
    return [problem.features[i] for i in np.sort(first).tolist()]
