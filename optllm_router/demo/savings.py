"""What a policy saved against a baseline on the same queries, with a paired bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.records import Floats

N_BLOCKS, BLOCK = 40, 50  # 2,000 resamples, 50 at a time: large batches stay small in memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """A share of the baseline's cost, 1 minus cost over baseline cost, with its 95 % interval."""

    saving: float
    low: float
    high: float


def paired_saving(
    cost_usd: Floats, baseline_usd: Floats, *, groups: Sequence[str], seed: int
) -> Saving:
    """Return the saving of one cost vector against another, paired by query.

    Args:
        cost_usd: What each query cost, shape (n_queries,), at least one query.
        baseline_usd: What the baseline would have cost on the same queries, same shape.
        groups: The text of each query; queries with equal texts are resampled together, because
            their costs are not independent.
        seed: Seed of the resampling.

    The interval is the 2.5 % and 97.5 % percentile over resamples of the groups (percentile
    bootstrap, Efron 1979). A baseline that cost nothing leaves nothing to save: all zeros.
    """
    baseline_total = float(baseline_usd.sum())
    if baseline_total <= 0:
        return Saving(saving=0.0, low=0.0, high=0.0)
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    cost: Floats = np.bincount(group, cost_usd).astype(np.float64)
    baseline: Floats = np.bincount(group, baseline_usd).astype(np.float64)
    rng = np.random.default_rng([seed, cost.size])
    totals = np.concatenate([_resampled(cost, baseline, rng) for _ in range(N_BLOCKS)])
    totals = totals[totals[:, 1] > 0]
    low, high = np.quantile(1.0 - totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return Saving(
        saving=1.0 - float(cost_usd.sum()) / baseline_total, low=float(low), high=float(high)
    )


def _resampled(cost: Floats, baseline: Floats, rng: np.random.Generator) -> Floats:
    shares = np.full(cost.size, 1.0 / cost.size)
    weights = rng.multinomial(cost.size, shares, size=BLOCK).astype(np.float64)
    return weights @ np.column_stack([cost, baseline])
