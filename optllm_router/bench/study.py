"""A whole evaluation: routers x seeds x numbers of labels on one table, summed up in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.figures import FIGURES, HEADLINE, RESAMPLED
from optllm_router.bench.names import OURS
from optllm_router.bench.papers import metallm, optllm
from optllm_router.bench.problem import Problem, SplitKind, split
from optllm_router.bench.protocol import run
from optllm_router.bench.realised import judged
from optllm_router.bench.records import Against, Report, Row, Run, Single
from optllm_router.bench.routers import (
    alike,
    forest,
    knn,
    oracle,
    ours,
    random_mix,
    ridge,
    unshrunk,
    zero,
)
from optllm_router.bench.routing import BuildRouter, Terms
from optllm_router.core.evaluation import Interval, bootstrap_weights, paired_interval, t_interval
from optllm_router.core.policy.wording import did_you_mean
from optllm_router.core.ridge import single_threaded
from optllm_router.errors import ConfigError
from optllm_router.records import Floats

ROUTERS: Mapping[str, BuildRouter] = {
    "ours": ours,
    "unshrunk": unshrunk,
    "alike": alike,
    "optllm": optllm,
    "metallm": metallm,
    "forest": forest,
    "knn": knn,
    "ridge": ridge,
    "zero": zero,
    "random": random_mix,
    "oracle": oracle,
}
FEW_SEEDS = 10
WEIGHTS_SEED = 20_240_515


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an evaluation runs: `n_labelled` are numbers of labelled queries, ascending.

    A split by time is the same for every seed, so it runs one, however many `n_seeds` are asked.
    """

    n_labelled: Sequence[int]
    n_seeds: int
    routers: Sequence[str]
    kind: SplitKind
    terms: Terms
    n_resamples: int

    @property
    def seeds(self) -> range:
        """The seeds that run."""
        return range(1 if self.kind == "time" else self.n_seeds)

    @property
    def n_runs(self) -> int:
        """How many runs that makes."""
        return len(self.n_labelled) * len(self.seeds) * len(self.routers)


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
    tests = {n: _test_parts(problem, plan, n) for n in plan.n_labelled}
    with single_threaded():
        runs = tuple(_runs(problem, plan, advance))
    return Report(
        source=problem.source,
        n_queries=problem.n_queries,
        n_texts=problem.n_texts,
        split=plan.kind,
        costs="oracle" if plan.terms.oracle_costs else "forecast",
        n_seeds=len(plan.seeds),
        n_resamples=plan.n_resamples,
        n_test={n: n_test for n, (n_test, _) in tests.items()},
        singles=singles(problem),
        test_singles={n: found for n, (_, found) in tests.items()},
        rows=tuple(rows_of(runs)),
        ours_against=tuple(ours_against(runs)),
        runs=runs,
        notes=tuple(_notes(plan, runs)),
    )


def _runs(problem: Problem, plan: Plan, advance: Callable[[str], None]) -> Iterator[Run]:
    rng = np.random.default_rng(WEIGHTS_SEED)
    weights = bootstrap_weights(range(problem.n_texts), plan.n_resamples, rng)
    for n in plan.n_labelled:
        for seed in plan.seeds:
            part = split(problem, plan.kind, n, seed)
            by = judged(part, weights)
            for name in plan.routers:
                advance(f"{name}, {n} labelled, seed {seed}")
                yield run(name, ROUTERS[name], part, plan.terms, by)


def _test_parts(problem: Problem, plan: Plan, n: int) -> tuple[int, tuple[Single, ...]]:
    """The rounded mean number of test queries over the seeds, and the candidates' means on them.

    An impossible split fails here, before anything runs.
    """
    parts = [split(problem, plan.kind, n, seed).test for seed in plan.seeds]
    by_seed = zip(*(singles(part) for part in parts), strict=True)
    return round(np.mean([part.n_queries for part in parts])), tuple(
        Single(
            candidate=of_one[0].candidate,
            score=float(np.mean([single.score for single in of_one])),
            cost_usd=float(np.mean([single.cost_usd for single in of_one])),
        )
        for of_one in by_seed
    )


def _notes(plan: Plan, runs: Sequence[Run]) -> Iterator[str]:
    """What a reader of the intervals must know."""
    n_seeds = len(plan.seeds)
    if n_seeds < plan.n_seeds:
        yield f"A split by {plan.kind} is the same for every seed: 1 of {plan.n_seeds} seeds ran."
    if n_seeds == 1 and plan.n_resamples:
        yield "With 1 seed, intervals over seeds and texts are over its test texts only."
    if 2 <= n_seeds < FEW_SEEDS and plan.n_resamples:
        yield (
            f"Below {FEW_SEEDS} seeds, an interval over seeds and texts spans both the bootstrap's "
            "and Student's over seeds."
        )
    undefined = [np.isnan(values).sum() for one in runs for values in one.resampled.values()]
    most = int(max(undefined, default=0))
    if most:
        yield (
            f"Up to {most} of {plan.n_resamples} resamples of texts leave a figure undefined; they "
            "do not count in its interval, which is over seeds only where they are more than half."
        )


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
        own, base = _runs_of(runs, n, name), _runs_of(runs, n, "zero")
        figures = {figure: _summed(own, figure) for figure in _common(own)}
        against = _against(own, base) if base and name != "zero" else {}
        yield Row(
            router=name,
            n_labelled=n,
            n_seeds=len(own),
            figures={figure: found for figure, (found, _) in figures.items()},
            against_zero={figure: found for figure, (found, _) in against.items()},
            kinds={figure: kind for figure, (_, kind) in figures.items()},
            against_kinds={figure: kind for figure, (_, kind) in against.items()},
            note=own[0].note,
        )


def ours_against(runs: Sequence[Run]) -> Iterator[Against]:
    """Compare `ours` with every other router per number of labels, in their order of appearance."""
    for n, name in dict.fromkeys((one.n_labelled, one.router) for one in runs):
        own, other = _runs_of(runs, n, OURS), _runs_of(runs, n, name)
        if own and name != OURS:
            found = _against(own, other)
            yield Against(
                router=name,
                n_labelled=n,
                n_seeds=len(other),
                figures={figure: interval for figure, (interval, _) in found.items()},
                kinds={figure: kind for figure, (_, kind) in found.items()},
            )


def _runs_of(runs: Sequence[Run], n_labelled: int, router: str) -> list[Run]:
    return [one for one in runs if (one.n_labelled, one.router) == (n_labelled, router)]


def _common(runs: Sequence[Run]) -> list[str]:
    """The figures that every run has, in their order."""
    return [name for name in FIGURES if all(name in run.figures for run in runs)]


def _summed(runs: Sequence[Run], figure: str) -> tuple[Interval, str]:
    """The figure's interval, and its kind as in `Row.kinds`."""
    estimates = np.array([run.figures[figure] for run in runs])
    if figure in RESAMPLED and all(figure in run.resampled for run in runs):
        return _interval(np.array([run.resampled[figure] for run in runs]), estimates)
    return _over_seeds(estimates)


def _against(runs: Sequence[Run], base: Sequence[Run]) -> dict[str, tuple[Interval, str]]:
    """The paired differences from another router, seed by seed and resample by resample."""
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


def _interval(resampled: Floats, estimates: Floats) -> tuple[Interval, str]:
    """Bootstrap over seeds and texts; below ten seeds at least as wide as Student's over seeds.

    A resample that leaves the figure undefined in some seed is left out; where those are more than
    half, the interval is over seeds alone.
    """
    defined = np.isfinite(resampled).all(axis=0)
    if not defined.any() or 2 * int(defined.sum()) < defined.size:
        return _over_seeds(estimates)
    rng = np.random.default_rng(WEIGHTS_SEED)
    found = paired_interval(resampled[:, defined], estimates, rng=rng, same_texts=True)
    if 2 <= estimates.size < FEW_SEEDS:
        student = t_interval(estimates)
        found = Interval(
            mean=found.mean, low=min(found.low, student.low), high=max(found.high, student.high)
        )
    return found, "seeds and texts"


def _over_seeds(estimates: Floats) -> tuple[Interval, str]:
    if estimates.size >= 2 and np.isfinite(estimates).all():
        return t_interval(estimates), "seeds"
    return Interval(mean=float(estimates.mean()), low=np.nan, high=np.nan), "none"
