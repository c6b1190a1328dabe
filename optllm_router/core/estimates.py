"""What is known of every query at every column before deciding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optllm_router.core.amounts import filled_output
from optllm_router.core.cost import Rates, Tariff, longest_prompt, output_limit, with_margin
from optllm_router.core.eligibility import reason_against
from optllm_router.core.features import SparseText, shapes_of
from optllm_router.core.snapshot import Snapshot
from optllm_router.records import Bools, Candidate, Floats, Ints, Query

UNKNOWN_WORST = int(np.iinfo(np.int64).max)
COST_RANGE = (0.1, 0.9)  # the shares of answers that a range of costs lies between


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


class Estimator:
    """Estimates queries at some candidates by what a snapshot learned.

    What only depends on the candidates is worked out once; requests are estimated one by one.
    Without a snapshot (nothing learned yet) `prob` is NaN and nothing is allowed, but costs, worst
    cases and abilities are known.
    """

    def __init__(self, snapshot: Snapshot | None, candidates: Sequence[Candidate]) -> None:
        self._snapshot = snapshot
        self._candidates = tuple(candidates)
        self._columns = tuple(candidate.name for candidate in candidates)
        self._tariffs = [Tariff(candidate) for candidate in candidates]
        self._rates = Rates(candidates)
        windows = (candidate.capabilities.context_window for candidate in candidates)
        known = (window for window in windows if window is not None)
        self._least_window = min(known, default=math.inf)
        self._index = None if snapshot is None else _aligning(snapshot.columns, self._columns)

    def estimate(
        self, queries: Sequence[Query], texts: Sequence[SparseText], *, spread: bool = True
    ) -> Estimates:
        """Estimate every query at every candidate. Without `spread`, `std` is NaN."""
        shape = (len(queries), len(self._columns))
        limits = self._limits(queries)
        prob, std = self._successes(queries, texts, spread=spread)
        cost = self._costs(queries, limits)
        reasons = tuple(self._reasons(query) for query in queries)
        able = np.ones(shape, dtype=np.bool_)
        for i, found in enumerate(reasons):
            if found:
                able[i] = [name not in found for name in self._columns]
        return Estimates(
            columns=self._columns,
            prob=prob,
            std=std,
            cost_usd=cost,
            worst_nusd=np.array(self._worst(queries, limits), dtype=np.int64).reshape(shape),
            able=able,
            allowed=able & np.isfinite(prob) & np.isfinite(cost),
            reasons=reasons,
        )

    def forecast_usd(self, queries: Sequence[Query]) -> Floats:
        """Return what queries are forecast to cost in USD, shape (n_queries, n_candidates).

        As `estimate` does, without asking who would succeed; NaN where nothing is known.
        """
        return self._costs(queries, self._limits(queries))

    def cost_quantile(self, queries: Sequence[Query], share: float) -> Floats:
        """Return what a `share` of answers costs at most in USD, (n_queries, n_candidates).

        The prompt is counted, so it is the cost at that quantile of the output tokens, all choices
        of a query together and at most their limits; or that of the bill, at most its worst case.
        NaN where nothing was observed of the candidate. Not needed to decide, hence not estimated.

        Raises: ValueError for a share outside of 0 to 1.
        """
        if self._snapshot is None:
            return np.full((len(queries), len(self._columns)), np.nan)
        tokens, tasks = _lengths(queries), [query.task for query in queries]
        each = self._aligned(self._snapshot.output_tokens.quantile(tokens, tasks, share))
        billed = self._aligned(self._snapshot.cost_usd.quantile(tokens, tasks, share))
        each = _all_choices(each, queries, self._limits(queries))
        return self._rates.forecast_usd(each, billed, tokens)

    def _successes(
        self, queries: Sequence[Query], texts: Sequence[SparseText], *, spread: bool
    ) -> tuple[Floats, Floats]:
        """Prob and std, (n_queries, n_candidates) each."""
        unknown = self._unknown(queries)
        if self._snapshot is None:
            return unknown, unknown
        tasks = [query.task for query in queries]
        success = self._snapshot.predictor.predict_features(
            texts, tasks=tasks, shapes=shapes_of(queries), spread=spread
        )
        return self._aligned(success.prob), self._aligned(success.std) if spread else unknown

    def _costs(self, queries: Sequence[Query], limits: list[list[int]]) -> Floats:
        tokens = _lengths(queries)
        each = billed = self._unknown(queries)
        if self._snapshot is not None:
            tasks = [query.task for query in queries]
            each = self._aligned(self._snapshot.output_tokens.predict(tokens, tasks))
            if self._rates.has_bills:
                billed = self._aligned(self._snapshot.cost_usd.predict(tokens, tasks))
        output = _all_choices(filled_output(each), queries, limits)
        return self._rates.forecast_usd(output, billed, tokens)

    def _unknown(self, queries: Sequence[Query]) -> Floats:
        return np.full((len(queries), len(self._columns)), np.nan)

    def _limits(self, queries: Sequence[Query]) -> list[list[int]]:
        return [[output_limit(each, query) for each in self._candidates] for query in queries]

    def _aligned(self, values: Floats) -> Floats:
        """What the snapshot says of its columns, in the order of the candidates."""
        if self._index is None:
            return values
        found = values[:, self._index]
        found[:, self._index < 0] = np.nan
        return found

    def _reasons(self, query: Query) -> dict[str, str]:
        if with_margin(query.n_prompt_tokens) < self._least_window and not _is_demanding(query):
            return {}
        found = {each.name: reason_against(each, query) for each in self._candidates}
        return {name: reason for name, reason in found.items() if reason is not None}

    def _worst(self, queries: Sequence[Query], limits: list[list[int]]) -> list[list[int]]:
        return [self._worst_of(query, row) for query, row in zip(queries, limits, strict=True)]

    def _worst_of(self, query: Query, limits: list[int]) -> list[int]:
        prompt = longest_prompt(query)
        return [
            _bounded(tariff.worst_nusd(query, prompt, limit))
            for tariff, limit in zip(self._tariffs, limits, strict=True)
        ]


def estimate(
    snapshot: Snapshot | None,
    queries: Sequence[Query],
    texts: Sequence[SparseText],
    candidates: Sequence[Candidate],
    *,
    spread: bool = True,
) -> Estimates:
    """Estimate some queries once; see `Estimator`."""
    return Estimator(snapshot, candidates).estimate(queries, texts, spread=spread)


def _aligning(known: tuple[str, ...], wanted: tuple[str, ...]) -> Ints | None:
    """Where each wanted column stands among the known ones, -1 for nowhere; None if they agree."""
    if known == wanted:
        return None
    position = {name: i for i, name in enumerate(known)}
    return np.array([position.get(name, -1) for name in wanted], dtype=np.int64)


def _lengths(queries: Sequence[Query]) -> Floats:
    return np.array([query.n_prompt_tokens for query in queries], dtype=np.float64)


def _all_choices(each: Floats, queries: Sequence[Query], limits: list[list[int]]) -> Floats:
    """All choices' output tokens: as much per choice as forecast, at most its limit."""
    most = np.array(limits, dtype=np.float64).reshape(each.shape)
    n_choices = np.array([max(query.n_choices, 1) for query in queries], dtype=np.float64)
    return np.minimum(each, most) * n_choices[:, None]


def _is_demanding(query: Query) -> bool:
    """Whether a query asks for anything that some candidates cannot do, its length apart."""
    return bool(query.n_tools or query.n_images or query.wants_json_schema or query.parameters)


def _bounded(worst_nusd: int | None) -> int:
    return UNKNOWN_WORST if worst_nusd is None else min(worst_nusd, UNKNOWN_WORST)
