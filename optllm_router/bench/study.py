"""A whole evaluation: routers x seeds x numbers of labels on one table, summed up in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.papers import metallm, optllm
from optllm_router.bench.problem import Problem, SplitKind, split
from optllm_router.bench.protocol import judged, run
from optllm_router.bench.records import FIGURES, HEADLINE, Report, Row, Run, Single
from optllm_router.bench.routers import forest, knn, oracle, ours, random_mix, zero
from optllm_router.bench.routing import BuildRouter, Terms
from optllm_router.core.evaluation import Interval, bootstrap_weights, paired_interval, t_interval
from optllm_router.core.policy.wording import did_you_mean
from optllm_router.errors import ConfigError
from optllm_router.records import Floats

ROUTERS: Mapping[str, BuildRouter] = {
    "ours": ours,
    "optllm": optllm,
    "metallm": metallm,
    "forest": forest,
    "knn": knn,
    "zero": zero,
    "random": random_mix,
    "oracle": oracle,
}
FEW_SEEDS = 10
WEIGHTS_SEED = 20_240_515


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an evaluation runs: `n_labelled` are numbers of labelled queries, ascending."""

    n_labelled: Sequence[int]
    n_seeds: int
    routers: Sequence[str]
    kind: SplitKind
    terms: Terms
    n_resamples: int

    @property
    def n_runs(self) -> int:
        """How many runs that makes."""
        return len(self.n_labelled) * self.n_seeds * len(self.routers)


def known_routers(names: Iterable[str]) -> tuple[str, ...]:
    """Check the names of routers, in order, each once. Raises: ConfigError."""
    asked = tuple(dict.fromkeys(names))
    for name in asked:
        if name not in ROUTERS:
            raise ConfigError(
                f"`--routers {name}` names no router{did_you_mean(name, ROUTERS)}: choose from "
                f"{', '.join(ROUTERS)}"
            )
    return asked


def evaluate(problem: Problem, plan: Plan, advance: Callable[[str], None]) -> Report:
    """Run everything, telling `advance` what is next, and sum it up."""
    n_test = _test_sizes(problem, plan)
    rng = np.random.default_rng(WEIGHTS_SEED)
    weights = bootstrap_weights(range(problem.n_texts), plan.n_resamples, rng)
    runs: list[Run] = []
    for n in plan.n_labelled:
        for seed in range(plan.n_seeds):
            part = split(problem, plan.kind, n, seed)
            by = judged(part, weights)
            for name in plan.routers:
                advance(f"{name}, {n} labelled, seed {seed}")
                runs.append(run(name, ROUTERS[name], part, plan.terms, by))
    return Report(
        source=problem.source,
        n_queries=problem.n_queries,
        n_texts=problem.n_texts,
        split=plan.kind,
        costs="oracle" if plan.terms.oracle_costs else "forecast",
        n_seeds=plan.n_seeds,
        n_resamples=plan.n_resamples,
        n_test=n_test,
        singles=singles(problem),
        rows=tuple(rows_of(runs)),
        runs=tuple(runs),
    )


def _test_sizes(problem: Problem, plan: Plan) -> dict[int, int]:
    """The test queries per number of labels, of seed 0; an impossible split fails here, at once."""
    sizes = {
        (n, seed): split(problem, plan.kind, n, seed).test.n_queries
        for n in plan.n_labelled
        for seed in range(plan.n_seeds)
    }
    return {n: sizes[n, 0] for n in plan.n_labelled}


def singles(problem: Problem) -> tuple[Single, ...]:
    """Return what asking one candidate for every query costs and scores."""
    score, cost = problem.scores.mean(axis=0), problem.cost_usd.sum(axis=0)
    return tuple(
        Single(candidate=name, score=float(score[j]), cost_usd=float(cost[j]))
        for j, name in enumerate(problem.candidates)
    )


def rows_of(runs: Sequence[Run]) -> Iterable[Row]:
    """Sum runs up, one row per number of labels and router, in their order of appearance."""
    for n, name in dict.fromkeys((one.n_labelled, one.router) for one in runs):
        own = [one for one in runs if (one.n_labelled, one.router) == (n, name)]
        base = [one for one in runs if (one.n_labelled, one.router) == (n, "zero")]
        yield Row(
            router=name,
            n_labelled=n,
            n_seeds=len(own),
            figures={figure: _summed(own, figure) for figure in _common(own)},
            against_zero=_against(own, base),
            note=own[0].note,
        )


def _common(runs: Sequence[Run]) -> list[str]:
    """The figures that every run has, in their order."""
    return [name for name in FIGURES if all(name in run.figures for run in runs)]


def _summed(runs: Sequence[Run], figure: str) -> Interval:
    estimates = np.array([run.figures[figure] for run in runs])
    if figure in HEADLINE and all(figure in run.resampled for run in runs):
        return _interval(np.array([run.resampled[figure] for run in runs]), estimates)
    return _over_seeds(estimates)


def _against(runs: Sequence[Run], base: Sequence[Run]) -> dict[str, Interval]:
    """The paired differences from the zero-router, seed by seed and resample by resample."""
    if not base or runs[0].router == "zero":
        return {}
    pairs = list(zip(runs, base, strict=True))
    found = {}
    for figure in _common([*runs, *base]):
        if figure not in HEADLINE:
            continue
        estimates = np.array([a.figures[figure] - b.figures[figure] for a, b in pairs])
        resampled = np.zeros((len(pairs), 0))
        if all(figure in run.resampled for run in (*runs, *base)):
            resampled = np.array([a.resampled[figure] - b.resampled[figure] for a, b in pairs])
        found[figure] = _interval(resampled, estimates)
    return found


def _interval(resampled: Floats, estimates: Floats) -> Interval:
    """Bootstrap over seeds and texts; below ten seeds at least as wide as Student's over seeds."""
    if not resampled.size or not np.isfinite(resampled).all():
        return _over_seeds(estimates)
    rng = np.random.default_rng(WEIGHTS_SEED)
    found = paired_interval(resampled, estimates, rng=rng, same_texts=True)
    if not 2 <= estimates.size < FEW_SEEDS:
        return found
    student = t_interval(estimates)
    return Interval(
        mean=found.mean, low=min(found.low, student.low), high=max(found.high, student.high)
    )


def _over_seeds(estimates: Floats) -> Interval:
    if estimates.size >= 2 and np.isfinite(estimates).all():
        return t_interval(estimates)
    return Interval(mean=float(estimates.mean()), low=np.nan, high=np.nan)
