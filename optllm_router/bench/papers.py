"""The two papers' routers in an evaluation, as published, on our split and our features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optllm_router.bench.metallm import (
    EXPLORING,
    PUBLISHED,
    Observations,
    Regime,
    Settings,
    price_grid,
    price_path,
    run_regime,
)
from optllm_router.bench.problem import Problem, Split
from optllm_router.bench.records import ExtraTable
from optllm_router.bench.routing import (
    Routed,
    Terms,
    forecast_costs,
    given_estimates,
    planned,
    with_tasks,
)
from optllm_router.bench.walks import choices_walk
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.planning import ROBUST_ALPHA
from optllm_router.core.ridge import single_threaded
from optllm_router.core.search import destroy_repair
from optllm_router.records import Floats

METALLM_COMPONENTS = 100
GRID = 50  # OptLLM's GN
N_TREES = 100
REGIMES: tuple[tuple[Regime, Settings], ...] = (
    ("offline", PUBLISHED),
    ("online", PUBLISHED),
    ("online_untrained", PUBLISHED),
    ("online_untrained", EXPLORING),
)


def optllm(split: Split, terms: Terms) -> Routed:
    """Route as OptLLM does (arXiv 2405.15130): bootstrapped forests, destroy and repair at GN 50.

    The walk has only the points that the search found (OptLLM-M); a budget or a target is planned
    by the single-objective mode (OptLLM-S), of whose code nothing was released.
    """
    seen = split.labelled
    predictor = ForestPredictor(
        terms.n_bootstraps,
        seed=split.seed,
        alpha=terms.alpha,
        n_trees=N_TREES,
        as_released=terms.as_released,
        n_jobs=2,
    ).fit_features(seen.features, seen.scores, groups=seen.texts)
    estimate = predictor.predict_features(split.test.features)
    cost = forecast_costs(split, terms)
    found = destroy_repair(
        estimate.prob,
        cost,
        robust_prob=predictor.robust(estimate),
        grid=GRID,
        as_released=terms.as_released,
    )
    std = estimate.std * (terms.alpha / ROBUST_ALPHA)  # planning adds ROBUST_ALPHA times it
    estimates = given_estimates(estimate.prob, cost, split.test.candidates, std=std)
    return Routed(
        walk=choices_walk(found.choice, cost),
        forecast_score=found.accuracy,
        prob=estimate.prob,
        cost_usd=cost,
        plan=lambda policy: planned(estimates, policy, None, search="destroy_repair"),
        note=_optllm_note(terms, len(found.choice)),
    )


def _optllm_note(terms: Terms, n_points: int) -> str:
    how = "with the released code's defects" if terms.as_released else "as published"
    return (
        f"text only, {how}; {terms.n_bootstraps} bootstraps of {N_TREES} trees (the paper: 100), "
        f"alpha {terms.alpha:g}, GN {GRID}, {n_points} points"
    )


def metallm(split: Split, terms: Terms) -> Routed:
    """Walk MetaLLM's price p (arXiv 2407.10834), its ridges fitted on the whole labelled part.

    Its costs are a candidate's mean, whatever the query; so is its forecast.
    """
    labelled, test = observations(split)
    with single_threaded():
        choices = np.unique(price_path(labelled, test.features, price_grid()), axis=0)
    known = split.test if terms.oracle_costs else split.labelled
    mean_cost = np.broadcast_to(known.cost_usd.mean(axis=0), split.test.cost_usd.shape)
    return Routed(walk=choices_walk(choices, mean_cost), note=f"{len(choices)} prices differ")


def observations(split: Split) -> tuple[Observations, Observations]:
    """Return the labelled and the test part with intercept, text components and tasks."""
    seen, asked = with_tasks(split, METALLM_COMPONENTS)
    return _observed(split.labelled, seen), _observed(split.test, asked)


def regimes_table(split: Split) -> ExtraTable:
    """Run MetaLLM's three regimes at the budgets that its paper uses: single candidates' costs.

    The untrained one also with settings under which it explores. The budgets are the mean test
    costs of the cheapest, the median and the best candidate, as far as they cost anything.
    """
    with single_threaded():
        rows = tuple(_regime_rows(split))
    return ExtraTable(
        title=f"MetaLLM's regimes, {split.labelled.n_queries} labelled, seed {split.seed}, "
        f"n = {split.test.n_queries:,} test queries",
        header=(
            "budget of",
            "regime",
            "budget, USD",
            "cost, USD",
            "overrun",
            "score",
            "that candidate's score",
            "p",
        ),
        rows=rows,
        note="p is tuned on half of the labelled part; the untrained regime starts without weights "
        "and uses the labels only for p and the candidates' mean costs. Where a row does not say "
        f"otherwise, {_settled(PUBLISHED)}: the released defaults, made for 4,096 features, with "
        "which an untrained bandit does not explore.",
    )


def _regime_rows(split: Split) -> Iterator[tuple[str, ...]]:
    labelled, test = observations(split)
    for j in _priced(split.test):
        budget = float(split.test.cost_usd[:, j].mean())
        for regime, settings in REGIMES:
            found = run_regime(
                labelled, test, budget_usd_per_query=budget, regime=regime, settings=settings
            )
            yield (
                f"{split.test.candidates[j]}'s",
                regime if settings is PUBLISHED else f"{regime}, {_settled(settings)}",
                f"{found.budget_usd:.4g}",
                f"{found.cost_usd:.4g}",
                f"{found.overrun:.1%}",
                f"{found.score:.4f}",
                f"{split.test.scores[:, j].mean():.4f}",
                f"{found.price:.4g}",
            )


def _settled(settings: Settings) -> str:
    return f"alpha {settings.exploration:g}, lambda {settings.ridge:g}"


def _priced(test: Problem) -> list[int]:
    """The cheapest candidate, the one of median cost, and the best; free ones give no budget."""
    cost, score = test.cost_usd.mean(axis=0), test.scores.mean(axis=0)
    by_cost = np.argsort(cost, kind="stable")
    chosen = [by_cost[0], by_cost[len(by_cost) // 2], np.lexsort((cost, -score))[0]]
    return list(dict.fromkeys(int(j) for j in chosen if cost[j] > 0.0))


def _observed(problem: Problem, features: Floats) -> Observations:
    return Observations(features=features, scores=problem.scores, cost_usd=problem.cost_usd)
