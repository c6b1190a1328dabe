"""What a search is worth: every way to a front, on identical estimates.

The exact front, OptLLM's destroy-and-repair search and its evolutionary baselines get the same
probabilities and costs. A point above the line through the exact front's points would refute its
optimality, so the largest distance above it is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec

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
N_REPEATS = 5
MAX_REFERENCE = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """One way to a front: its points, time, quality, and how far a point is above the exact line.

    `above` is in mean accuracy, negative where every point is below the line. The four figures
    before it are NaN where the exact front is one point, which gives the axes no unit.
    """

    name: str
    n_points: int
    seconds: float
    igd: float
    igd_plus: float
    spread: float
    hypervolume: float
    above: float


def compare_fronts(
    prob: Floats, cost_usd: Floats, *, seed: int, evolutionary: bool, limit_s: float = 60.0
) -> list[FrontRow]:
    """Compare the ways to a front on (n_queries, n_candidates) estimates.

    Args:
        prob: probabilities.
        cost_usd: costs in USD.
        seed: of the evolutionary algorithms, which take at most `MAX_QUERIES` queries.
        evolutionary: whether to run them; each has `limit_s` seconds.
        limit_s: seconds.
    """
    seconds, front = _fastest(lambda: pareto_front(prob, cost_usd))
    judge = _Judge(prob, cost_usd, front)
    rows = [judge.points("exact front", np.column_stack([front.cost_usd, front.accuracy]), seconds)]
    for grid in GRIDS:
        start = time.perf_counter()
        found = destroy_repair(prob, cost_usd, grid=grid)
        took = time.perf_counter() - start
        rows.append(judge.choices(f"destroy and repair, GN {grid}", found.choice, took))
    if evolutionary and len(prob) <= MAX_QUERIES:
        rows += list(_evolved(judge, seed, limit_s))
    return rows


def fronts_table(split: Split, terms: Terms, *, limit_s: float = 60.0) -> Iterator[ExtraTable]:
    """Compare the ways to a front on our estimates of a split's test part.

    On up to `MAX_QUERIES` of its queries with the evolutionary baselines, where pymoo is installed;
    on all of them without, where there are more.
    """
    routed = ours(split, terms)
    prob, cost = np.asarray(routed.prob), np.asarray(routed.cost_usd)
    few = slice(0, MAX_QUERIES)
    installed = find_spec("pymoo") is not None
    rows = compare_fronts(
        prob[few], cost[few], seed=split.seed, evolutionary=installed, limit_s=limit_s
    )
    missing = "The evolutionary baselines need the extra `evolutionary`."
    yield _written(rows, len(prob[few]), remark="" if installed else missing)
    if len(prob) > MAX_QUERIES:
        rows = compare_fronts(prob, cost, seed=split.seed, evolutionary=False)
        yield _written(rows, len(prob))


def _written(rows: list[FrontRow], n_queries: int, *, remark: str = "") -> ExtraTable:
    """Write the comparison out, with the ratio of times that OptLLM's search takes."""
    exact, slow = rows[0], next(row for row in rows if row.name.endswith("GN 50"))
    return ExtraTable(
        title=f"Fronts on identical estimates, n = {n_queries:,} queries",
        header=(
            "search",
            "points",
            "time, s",
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
                f"{row.igd:.4f}",
                f"{row.igd_plus:.4f}",
                f"{row.spread:.3f}",
                f"{row.hypervolume:.4f}",
                f"{row.above:.1e}",
            )
            for row in rows
        ),
        note=f"Destroy and repair at GN 50 takes {slow.seconds / exact.seconds:,.0f} times as long "
        "as the exact front. IGD, IGD+ and spread are against the exact front, axes normalised by "
        f"its ends; a search is at most 1e-12 above its line. {remark}".strip(),
    )


def _evolved(judge: _Judge, seed: int, limit_s: float) -> Iterator[FrontRow]:
    for name in NAMES:
        found = evolve(name, judge.prob, judge.cost_usd, seed=seed, limit_s=limit_s)
        label = f"{name}, {found.n_generations} generations"
        yield judge.choices(label, found.choice, found.seconds)


def _fastest(compute: Callable[[], ParetoFront]) -> tuple[float, ParetoFront]:
    """The least time of some runs, and what they return."""
    front, times = compute(), []
    for _ in range(N_REPEATS):
        start = time.perf_counter()
        front = compute()
        times.append(time.perf_counter() - start)
    return min(times), front


class _Judge:
    """Judges points by the exact front of the same estimates."""

    def __init__(self, prob: Floats, cost_usd: Floats, front: ParetoFront) -> None:
        self.prob, self.cost_usd, self.front = prob, cost_usd, front
        points = np.column_stack([front.cost_usd, front.accuracy])
        self._reference = points[:: -(-len(points) // MAX_REFERENCE)]
        self._reference = np.unique(np.vstack([self._reference, points[-1:]]), axis=0)

    def choices(self, name: str, choice: Ints, seconds: float) -> FrontRow:
        """Judge allocations, (n_points, n_queries)."""
        each = np.arange(len(self.prob))
        cost = np.array([self.cost_usd[each, one].sum() for one in choice])
        accuracy = np.array([self.prob[each, one].mean() for one in choice])
        return self.points(name, np.column_stack([cost, accuracy]), seconds)

    def points(self, name: str, points: Floats, seconds: float) -> FrontRow:
        """Judge points of total cost and mean accuracy, (n_points, 2)."""
        line = np.interp(points[:, 0], self.front.cost_usd, self.front.accuracy)
        above = float((points[:, 1] - line).max())
        if len(self._reference) < 2:
            return FrontRow(
                name=name,
                n_points=len(points),
                seconds=seconds,
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
            seconds=seconds,
            igd=igd(scaled, reference),
            igd_plus=igd_plus(scaled, reference),
            spread=spread(scaled, reference),
            hypervolume=hypervolume(scaled),
            above=above,
        )
