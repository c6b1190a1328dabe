"""A served batch against always asking one candidate, on the batch's own queries."""

from __future__ import annotations

from dataclasses import dataclass

from optllm_router.demo.draw import PolicyRow, usd
from optllm_router.demo.report import PolicyResult
from optllm_router.demo.savings import paired_saving
from optllm_router.demo.worlds import World
from optllm_router.records import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedBatch:
    """One served and graded batch; score and cost of each query have shape (n_queries,).

    A query without an answer has score 0 and cost 0.
    """

    policy: str
    asked: float
    rows: Ints
    score: Floats
    cost_usd: Floats


def compare(batch: ServedBatch, world: World, *, best: str, seed: int) -> PolicyResult:
    """Compare a batch with always asking `best` on the same queries."""
    score, cost = world.truth(best, batch.rows)
    saving = paired_saving(batch.cost_usd, cost, groups=_texts(batch, world), seed=seed)
    return PolicyResult(
        policy=batch.policy,
        asked=batch.asked,
        n=int(batch.rows.size),
        cost_usd=float(batch.cost_usd.sum()),
        accuracy=float(batch.score.mean()),
        saving=saving.saving,
        saving_low=saving.low,
        saving_high=saving.high,
        baseline_cost_usd=float(cost.sum()),
        baseline_accuracy=float(score.mean()),
    )


def table_rows(result: PolicyResult, *, best: str, cheapest: PolicyRow) -> list[PolicyRow]:
    """Return the rows of a batch's table: the batch, always `best`, always the cheapest."""
    asked = usd(result.asked) if result.policy == "budget" else f"{result.asked:.3f}"
    served = PolicyRow(
        policy=result.policy,
        asked=asked,
        cost_usd=result.cost_usd,
        accuracy=result.accuracy,
        saving=result.saving,
        interval=(result.saving_low, result.saving_high),
    )
    always_best = PolicyRow(
        policy=f"always the best: {best}",
        cost_usd=result.baseline_cost_usd,
        accuracy=result.baseline_accuracy,
    )
    return [served, always_best, cheapest]


def cheapest_row(
    batch: ServedBatch, world: World, *, best: str, cheapest: str, seed: int
) -> PolicyRow:
    """Return the row of always asking `cheapest`, its saving against always asking `best`."""
    score, cost = world.truth(cheapest, batch.rows)
    _, best_cost = world.truth(best, batch.rows)
    saving = paired_saving(cost, best_cost, groups=_texts(batch, world), seed=seed)
    return PolicyRow(
        policy=f"always the cheapest: {cheapest}",
        cost_usd=float(cost.sum()),
        accuracy=float(score.mean()),
        saving=saving.saving,
        interval=(saving.low, saving.high),
    )


def _texts(batch: ServedBatch, world: World) -> list[str]:
    return [world.texts[int(row)] for row in batch.rows]
