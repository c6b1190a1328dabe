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

    A query without an answer has score 0 and what its attempts cost.
    """

    policy: str
    asked: float
    rows: Ints
    score: Floats
    cost_usd: Floats


def compare(
    batch: ServedBatch, world: World, *, best: str, cheapest: str, seed: int
) -> tuple[PolicyResult, list[PolicyRow]]:
    """Return a batch's result against always `best`, and the rows of its table.

    The rows are the batch, always `best`, and always `cheapest`, each on the same queries.
    """
    texts = [world.texts[int(row)] for row in batch.rows]
    best_score, best_cost = world.truth(best, batch.rows)
    low_score, low_cost = world.truth(cheapest, batch.rows)
    saving = paired_saving(batch.cost_usd, best_cost, groups=texts, seed=seed)
    result = PolicyResult(
        policy=batch.policy,
        asked=batch.asked,
        n=int(batch.rows.size),
        cost_usd=float(batch.cost_usd.sum()),
        accuracy=float(batch.score.mean()),
        saving=saving.saving,
        saving_low=saving.low,
        saving_high=saving.high,
        baseline_cost_usd=float(best_cost.sum()),
        baseline_accuracy=float(best_score.mean()),
    )
    least = paired_saving(low_cost, best_cost, groups=texts, seed=seed)
    rows = [
        PolicyRow(
            policy=batch.policy,
            asked=usd(batch.asked) if batch.policy == "budget" else f"{batch.asked:.3f}",
            cost_usd=result.cost_usd,
            accuracy=result.accuracy,
            saving=saving.saving,
            interval=(saving.low, saving.high),
        ),
        PolicyRow(
            policy=f"always the best: {best}",
            cost_usd=result.baseline_cost_usd,
            accuracy=result.baseline_accuracy,
        ),
        PolicyRow(
            policy=f"always the cheapest: {cheapest}",
            cost_usd=float(low_cost.sum()),
            accuracy=float(low_score.mean()),
            saving=least.saving,
            interval=(least.low, least.high),
        ),
    ]
    return result, rows
