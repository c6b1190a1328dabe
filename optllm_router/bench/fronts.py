"""What a search is worth: every way to a front, on identical estimates.

The exact front, OptLLM's destroy-and-repair search and its evolutionary baselines get the same
probabilities and costs. A point above the line through the exact front's points would refute its
optimality, so the largest distance above it is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import TypeVar

import numpy as np

from optllm_router.bench.evolutionary import MAX_QUERIES, NAMES, evolve
from optllm_router.bench.problem import Split
from optllm_router.bench.records import ExtraTable
from optllm_router.bench.routers import ours
from optllm_router.bench.routing import Terms
from optllm_router.core.front import ParetoFront, pareto_front
from optllm_router.core.front.quality import hypervolume, igd, igd_plus, normalised, spread
from optllm_router.core.search import destroy_repair
from optllm_router.records import Floats, Ints

GRIDS = (10, 50, 200)
N_RUNS = 5  # of which the fastest counts: the first one may be cold
REPEAT_S = 5.0  # no further run once so many seconds have been spent
ROUNDING = 1e-9  # of a mean accuracy: what is farther above the exact line refutes it
MAX_REFERENCE = 2_000

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """One way to a front: its points, time, quality, and how far a point is above the exact line.

    `seconds` is the fastest of `n_runs` runs. `above` is in mean accuracy, negative where every
    point is below the line. The four figures before it are NaN where the exact front is one point,
    which gives the axes no unit.
    """

    name: str
    n_points: int
    seconds: float
    n_runs: int
    igd: float
    igd_plus: float
    spread: float
    hypervolume: float
    above: float


def compare_fronts(
    prob: Floats, cost_usd: Floats, *, seed: int, evolutionary: bool, limit_s: float = 60.0
) -> list[FrontRow]:
    """Compare the ways to a front on (n_queries, n_candidates) estimates.

    The exact front and OptLLM's search are timed alike, the fastest of up to `N_RUNS` runs; the
    evolutionary algorithms, which take as long as they are given, run once.

    Args:
        prob: probabilities.
        cost_usd: costs in USD.
        seed: of the evolutionary algorithms, which take at most `MAX_QUERIES` queries.
        evolutionary: whether to run them; each has `limit_s` seconds.
        limit_s: seconds.
    """
    front, timed = _fastest(lambda: pareto_front(prob, cost_usd))
    judge = _Judge(prob, cost_usd, front)
    rows = [judge.points("exact front", np.column_stack([front.cost_usd, front.accuracy]), timed)]
    for grid in GRIDS:
        found, timed = _fastest(partial(destroy_repair, prob, cost_usd, grid=grid))
        rows.append(judge.choices(f"destroy and repair, GN {grid}", found.choice, timed))
    if evolutionary and len(prob) <= MAX_QUERIES:
        rows += list(_evolved(judge, seed, limit_s))
    return rows


def fronts_table(split: Split, terms: Terms, *, limit_s: float = 60.0) -> Iterator[ExtraTable]:
    """Compare the ways to a front on our estimates of a split's test part.

    On up to `MAX_QUERIES` of its queries, drawn by the split's seed, with the evolutionary
    baselines, where pymoo is installed; on all of them without, where there are more.
    """
    routed = ours(split, terms)
    prob, cost = np.asarray(routed.prob), np.asarray(routed.cost_usd)
    few, drawn = _drawn(len(prob), split.seed)
    installed = find_spec("pymoo") is not None
    rows = compare_fronts(
        prob[few], cost[few], seed=split.seed, evolutionary=installed, limit_s=limit_s
    )
    missing = "The evolutionary baselines need the extra `evolutionary`."
    yield written(rows, f"{len(few):,} queries{drawn}", remark="" if installed else missing)
    if drawn:
        rows = compare_fronts(prob, cost, seed=split.seed, evolutionary=False)
        yield written(rows, f"{len(prob):,} queries")


def _drawn(n_queries: int, seed: int) -> tuple[Ints, str]:
    """At most `MAX_QUERIES` queries, ascending, and how they were drawn, empty where all are."""
    if n_queries <= MAX_QUERIES:
        return np.arange(n_queries), ""
    few = np.random.default_rng(seed).choice(n_queries, MAX_QUERIES, replace=False)
    return np.sort(few), f" drawn at random from {n_queries:,} (seed {seed})"


def written(rows: Sequence[FrontRow], queries: str, *, remark: str = "") -> ExtraTable:
    """Write a comparison on some `queries` out, with the ratio of times of OptLLM's search."""
    return ExtraTable(
        title=f"Fronts on identical estimates, n = {queries}",
        header=(
            "search",
            "points",
            "time, s",
            "runs",
            "IGD",
            "IGD+",
            "spread",
            "hypervolume",
            "above the exact line",
        ),
        rows=tuple(
            (
                row.name,
                f"{row.n_points:,}",
                f"{row.seconds:.4g}",
                f"{row.n_runs}",
                f"{row.igd:.4f}",
                f"{row.igd_plus:.4f}",
                f"{row.spread:.3f}",
                f"{row.hypervolume:.4f}",
                f"{row.above:.1e}",
            )
            for row in rows
        ),
        note=f"{_verdict(rows)} {_slowdown(rows)} IGD, IGD+ and spread are against the exact "
        f"front, axes normalised by its ends. {remark}".strip(),
    )


def _verdict(rows: Sequence[FrontRow]) -> str:
    """Say how far above the exact line a point is, loudly where rounding does not explain it."""
    highest = max(rows, key=lambda row: row.above)
    if highest.above > ROUNDING:
        return (
            f"THE EXACT FRONT IS REFUTED: {highest.name} is {highest.above:.1e} above its line. "
            "This is a defect of the router, please report it."
        )
    return f"No point of a search is more than {highest.above:.1e} above the exact front's line."


def _slowdown(rows: Sequence[FrontRow]) -> str:
    """Say how times were taken, and how much longer the search at the papers' GN takes."""
    exact, slow = rows[0], next(row for row in rows if row.name.endswith("GN 50"))
    return (
        "A time is the fastest run's; there are fewer runs where one is slow, and one of each "
        f"evolutionary baseline. Destroy and repair at GN 50 takes "
        f"{slow.seconds / exact.seconds:,.0f} times as long as the exact front."
    )


def _evolved(judge: _Judge, seed: int, limit_s: float) -> Iterator[FrontRow]:
    for name in NAMES:
        found = evolve(name, judge.prob, judge.cost_usd, seed=seed, limit_s=limit_s)
        label = f"{name}, {found.n_generations} generations"
        yield judge.choices(label, found.choice, _Timed(found.seconds, 1))


@dataclass(frozen=True, slots=True)
class _Timed:
    """The fastest of some runs."""

    seconds: float
    n_runs: int


def _fastest(compute: Callable[[], Found]) -> tuple[Found, _Timed]:
    """What some runs return, and the least of their times."""
    times: list[float] = []
    while True:
        start = time.perf_counter()
        found = compute()
        times.append(time.perf_counter() - start)
        if len(times) == N_RUNS or sum(times) > REPEAT_S:
            return found, _Timed(min(times), len(times))


class _Judge:
    """Judges points by the exact front of the same estimates."""

    def __init__(self, prob: Floats, cost_usd: Floats, front: ParetoFront) -> None:
        self.prob, self.cost_usd, self.front = prob, cost_usd, front
        points = np.column_stack([front.cost_usd, front.accuracy])
        self._reference = points[:: -(-len(points) // MAX_REFERENCE)]
        self._reference = np.unique(np.vstack([self._reference, points[-1:]]), axis=0)

    def choices(self, name: str, choice: Ints, timed: _Timed) -> FrontRow:
        """Judge allocations, (n_points, n_queries)."""
        each = np.arange(len(self.prob))
        cost = np.array([self.cost_usd[each, one].sum() for one in choice])
        accuracy = np.array([self.prob[each, one].mean() for one in choice])
        return self.points(name, np.column_stack([cost, accuracy]), timed)

    def points(self, name: str, points: Floats, timed: _Timed) -> FrontRow:
        """Judge points of total cost and mean accuracy, (n_points, 2)."""
        line = np.interp(points[:, 0], self.front.cost_usd, self.front.accuracy)
        above = float((points[:, 1] - line).max())
        if len(self._reference) < 2:
            return FrontRow(
                name=name,
                n_points=len(points),
                seconds=timed.seconds,
                n_runs=timed.n_runs,
                igd=np.nan,
                igd_plus=np.nan,
                spread=np.nan,
                hypervolume=np.nan,
                above=above,
            )
        thin = points[:: -(-len(points) // MAX_REFERENCE)]
        scaled = normalised(np.unique(np.vstack([thin, points[-1:]]), axis=0), self._reference)
        reference = normalised(self._reference, self._reference)
        return FrontRow(
            name=name,
            n_points=len(points),
            seconds=timed.seconds,
            n_runs=timed.n_runs,
            igd=igd(scaled, reference),
            igd_plus=igd_plus(scaled, reference),
            spread=spread(scaled, reference),
            hypervolume=hypervolume(scaled),
            above=above,
        )
