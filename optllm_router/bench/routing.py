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
from optllm_router.records import Floats, Ints, SearchKind


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
    `n_bootstraps` and `alpha` are OptLLM's; `as_released` reproduces the defects of its code.
    """

    oracle_costs: bool = False
    n_bootstraps: int = 20
    alpha: float = 0.5
    as_released: bool = False


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


def planned(
    estimates: Estimates,
    policy: Policy,
    optimism: Optimism | None,
    *,
    search: SearchKind = "exact",
) -> Ints:
    """Plan the batch; an amount or a target that is out of reach is replaced by the nearest."""
    try:
        return plan_batch(estimates, policy, optimism, search=search).choice
    except InfeasiblePolicyError as error:
        nearest = nearest_feasible(policy, error.nearest)
        return plan_batch(estimates, nearest, optimism, search=search).choice


def nearest_feasible(policy: Policy, nearest: float) -> Policy:
    """Return a policy with its amount or target replaced. Raises: TypeError for others.

    Where no accuracy above 0 is expected, which is no target, the most accurate allocation.
    """
    if isinstance(policy, TargetAccuracy):
        return replace(policy, accuracy=nearest) if nearest > 0.0 else MostAccurate()
    if isinstance(policy, Budget):
        return replace(policy, usd=nearest)
    raise TypeError(f"{policy!r} has no amount and no target: it is always feasible")


def given_estimates(
    prob: Floats, cost_usd: Floats, candidates: Sequence[str], *, std: Floats | None = None
) -> Estimates:
    """Return estimates that come from elsewhere, every candidate allowed everywhere.

    All (n_queries, n_candidates); without `std` the estimates' uncertainty is unknown (NaN).
    """
    everywhere = np.ones(prob.shape, dtype=np.bool_)
    return Estimates(
        columns=tuple(candidates),
        prob=prob,
        std=np.full(prob.shape, np.nan) if std is None else std,
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
    seen, asked = (
        np.hstack([np.ones((len(components), 1)), components, tasks])
        for components, tasks in zip(
            text_components(split, n_components), task_indicators(split), strict=True
        )
    )
    return seen, asked


def task_indicators(split: Split) -> tuple[Floats, Floats]:
    """Return 1 where a labelled or a test query is of a labelled task, (n_queries, n_tasks) each.

    An unnamed task, and one that no labelled query has, is a row of zeros.
    """
    names = sorted({task for task in split.labelled.tasks if task})
    return _indicators(split.labelled, names), _indicators(split.test, names)


def _indicators(problem: Problem, names: Sequence[str]) -> Floats:
    is_of = np.array([[task == name for name in names] for task in problem.tasks], dtype=np.float64)
    return is_of.reshape(problem.n_queries, len(names))


def _distinct(problem: Problem) -> list[SparseText]:
    _, first = np.unique(problem.group, return_index=True)
    return [problem.features[i] for i in np.sort(first).tolist()]
