"""What is known of every query at every column before deciding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.core.cost import filled_output, forecast_usd, output_limit, worst_case_nusd
from optllm_router.core.eligibility import reason_against
from optllm_router.core.features import SparseText, shapes_of
from optllm_router.core.snapshot import Snapshot
from optllm_router.records import Bools, Candidate, Floats, Ints, Query

UNKNOWN_WORST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """What is known of every query at every column before deciding, (n_queries, n_columns) each.

    `prob` and `std` are NaN where nothing is learned. `worst_nusd` is the most a call can cost.
    `able` says whether the column can serve the query at all, `allowed` whether it may be planned
    with (able, labelled, and with a cost forecast); `reasons[i]` says why a column is not able.
    """

    columns: tuple[str, ...]
    prob: Floats
    std: Floats
    cost_usd: Floats
    worst_nusd: Ints
    able: Bools
    allowed: Bools
    reasons: tuple[dict[str, str], ...]

    @property
    def n_queries(self) -> int:
        """The number of queries."""
        return int(self.prob.shape[0])

    def rows(self, index: Ints) -> Estimates:
        """Return the estimates of some of the queries."""
        return Estimates(
            columns=self.columns,
            prob=self.prob[index],
            std=self.std[index],
            cost_usd=self.cost_usd[index],
            worst_nusd=self.worst_nusd[index],
            able=self.able[index],
            allowed=self.allowed[index],
            reasons=tuple(self.reasons[int(i)] for i in index),
        )


def estimate(
    snapshot: Snapshot | None,
    queries: Sequence[Query],
    texts: Sequence[SparseText],
    candidates: Sequence[Candidate],
    *,
    spread: bool = True,
) -> Estimates:
    """Estimate every query at every candidate.

    Without a snapshot (nothing learned yet) `prob` is NaN and nothing is allowed, but costs, worst
    cases and abilities are known. Without `spread`, `std` is NaN.
    """
    prob, std, cost = _predictions(snapshot, queries, texts, candidates, spread=spread)
    reasons = tuple(_reasons(candidates, query) for query in queries)
    able = np.array(
        [[candidate.name not in found for candidate in candidates] for found in reasons],
        dtype=np.bool_,
    ).reshape(len(queries), len(candidates))
    worst = np.array([[_worst(c, q) for c in candidates] for q in queries], dtype=np.int64)
    return Estimates(
        columns=tuple(candidate.name for candidate in candidates),
        prob=prob,
        std=std,
        cost_usd=cost,
        worst_nusd=worst.reshape(able.shape),
        able=able,
        allowed=able & np.isfinite(prob) & np.isfinite(cost),
        reasons=reasons,
    )


def _predictions(
    snapshot: Snapshot | None,
    queries: Sequence[Query],
    texts: Sequence[SparseText],
    candidates: Sequence[Candidate],
    *,
    spread: bool,
) -> tuple[Floats, Floats, Floats]:
    """Prob, std and cost, (n_queries, n_candidates), aligned with the candidates' order."""
    shape = (len(queries), len(candidates))
    tokens = np.array([query.n_prompt_tokens for query in queries], dtype=np.float64)
    unknown = np.full(shape, np.nan)
    if snapshot is None:
        output = _expected_output(unknown, queries, candidates)
        return unknown, unknown, forecast_usd(candidates, output, unknown, tokens)
    tasks = [query.task for query in queries]
    position = {name: i for i, name in enumerate(snapshot.columns)}
    index = np.array([position.get(c.name, -1) for c in candidates], dtype=np.int64)

    def aligned(values: Floats) -> Floats:
        found = values[:, index]
        found[:, index < 0] = np.nan
        return found

    success = snapshot.predictor.predict_features(
        texts, tasks=tasks, shapes=shapes_of(queries), spread=spread
    )
    each = aligned(snapshot.output_tokens.predict(tokens, tasks))
    output = _expected_output(each, queries, candidates)
    billed = aligned(snapshot.cost_usd.predict(tokens, tasks))
    cost = forecast_usd(candidates, output, billed, tokens)
    return aligned(success.prob), aligned(success.std), cost


def _expected_output(
    each: Floats, queries: Sequence[Query], candidates: Sequence[Candidate]
) -> Floats:
    """All choices' output tokens: as much per choice as forecast, at most its limit."""
    limits = np.array([[output_limit(c, q) for c in candidates] for q in queries], dtype=np.float64)
    n_choices = np.array([max(query.n_choices, 1) for query in queries], dtype=np.float64)
    return np.minimum(filled_output(each), limits.reshape(each.shape)) * n_choices[:, None]


def _reasons(candidates: Sequence[Candidate], query: Query) -> dict[str, str]:
    found = {candidate.name: reason_against(candidate, query) for candidate in candidates}
    return {name: reason for name, reason in found.items() if reason is not None}


def _worst(candidate: Candidate, query: Query) -> int:
    worst = worst_case_nusd(candidate, query)
    return int(UNKNOWN_WORST) if worst is None else min(worst, int(UNKNOWN_WORST))
