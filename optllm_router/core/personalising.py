"""How much of the columns' differences to keep, by what decisions made with them are worth.

The least-squares share (`contrast_slope`) says which estimates are true on average; a decision
takes the largest of several, so that it can want less of them, or more where only their order
counts. Here every share decides for labelled queries by estimates that did not see them, and is
worth the mean score that its front buys over all budgets. Shares are weighed by how clearly
resampled texts set them apart (exponential weights: Littlestone & Warmuth, Information and
Computation 108, 1994) and by how near they are to the least-squares one, which stands where no
decision tells them apart: the single best share is mostly luck while labels are few.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optllm_router.core.evaluation import Curve, best_single, budget_area
from optllm_router.core.front import pareto_front
from optllm_router.core.success.personal import Personal
from optllm_router.records import Floats, Ints

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
COMPARED_WITH = 3  # the share that the others are set apart from
SLOPE_SPREAD = 0.25  # of the shares that are worth most around the least-squares one
N_RESAMPLES = 20
MAX_JUDGED = 1_000
MIN_JUDGED = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """Labelled queries of which every column is known, (n_queries, n_columns) each.

    `estimates` did not see the query's own text, `elsewhere` is what the columns score on other
    texts; `forecast_usd` is what a cost was expected to be, `cost_usd` what it was. `text`
    (n_queries,) is equal for equal texts.
    """

    estimates: Floats
    elsewhere: Floats
    scores: Floats
    forecast_usd: Floats
    cost_usd: Floats
    text: Ints

    def rows(self, index: Ints) -> Judged:
        """Return some of the queries."""
        return Judged(
            estimates=self.estimates[index],
            elsewhere=self.elsewhere[index],
            scores=self.scores[index],
            forecast_usd=self.forecast_usd[index],
            cost_usd=self.cost_usd[index],
            text=self.text[index],
        )


def chosen_contrast(judged: Judged, column_score: Floats, slope: float, seed: int) -> float:
    """Return the share of the columns' differences to keep, in [0, 1].

    Args:
        judged: labelled queries; of more than `MAX_JUDGED` some are used, evenly spread.
        column_score: (n_columns,), each known.
        slope: the least-squares share; it stands alone below `MIN_JUDGED` distinct texts, for one
            column, and where a column costs nothing at all.
        seed: of the resampling.
    """
    n = len(judged.scores)
    judged = judged.rows(np.unique(np.linspace(0, n - 1, min(n, MAX_JUDGED)).astype(np.int64)))
    _, text = np.unique(judged.text, return_inverse=True)
    if n == 0 or text.max() + 1 < MIN_JUDGED or column_score.size < 2:
        return slope
    kept = [Personal(column_score, share) for share in SHARES]
    by_share = [
        np.clip(one.of_left_out(judged.estimates, judged.elsewhere), 0.0, 1.0) for one in kept
    ]
    rng = np.random.default_rng(seed)
    values = np.array(list(_resampled_values(judged, by_share, text, rng)))
    return slope if values.size == 0 else _weighed(values, slope)


def _weighed(values: Floats, slope: float) -> float:
    """The mean share, weighted by the values, (n_resamples, n_shares), and nearness to `slope`."""
    gain = values - values[:, [COMPARED_WITH]]
    error = np.maximum(gain.std(axis=0), 1e-9)
    clarity = gain.mean(axis=0) / error
    shares = np.array(SHARES)
    likely = clarity - ((shares - slope) / SLOPE_SPREAD) ** 2 / 2.0
    weight = np.exp(likely - likely.max())
    return float(weight @ shares / weight.sum())


def _resampled_values(
    judged: Judged, by_share: list[Floats], text: Ints, rng: np.random.Generator
) -> Iterator[list[float]]:
    """Every share's value on resampled texts; resamples with a free column are left out."""
    order = np.argsort(text, kind="stable")
    rows_of = np.split(order, np.searchsorted(text[order], np.arange(1, text.max() + 1)))
    for _ in range(N_RESAMPLES):
        drawn = rng.integers(0, len(rows_of), len(rows_of))
        rows = np.concatenate([rows_of[i] for i in drawn])
        part = judged.rows(rows)
        cheapest, best = part.cost_usd.sum(axis=0).min(), best_single(part.scores, part.cost_usd)
        if cheapest > 0.0:
            yield [_value(prob[rows], part, float(cheapest), best.cost_usd) for prob in by_share]


def _value(prob: Floats, part: Judged, cheapest_usd: float, best_cost_usd: float) -> float:
    """The mean score over budgets of the front of some estimates."""
    front = pareto_front(prob, part.forecast_usd)
    curve = Curve(
        forecast_usd=front.cost_usd,
        cost_usd=np.maximum(front.totals_of(part.cost_usd), 0.0),
        score=np.clip(front.totals_of(part.scores) / len(prob), 0.0, 1.0),
    )
    return budget_area(curve, cheapest_usd=cheapest_usd, best_cost_usd=best_cost_usd)
