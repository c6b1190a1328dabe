"""Always asking one candidate: what a log supports, and why it does not support the rest.

A candidate's outcome on a query is known where it served that query and was graded, or where a
probe or an imported row of the same text has it. The policy takes its choice without chance, so the
queries that it gave to a candidate are not like the others: their mean is no estimate for them, and
without an outcome for every query nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from optllm_router.bench.stored.groups import group_name
from optllm_router.bench.stored.reading import FAILED, NONE, Log, Rows
from optllm_router.bench.stored.records import Comparison, FullInformation, exact_usd
from optllm_router.bench.stored.resampling import mean_interval, ratio_interval
from optllm_router.core.evaluation import Interval
from optllm_router.records import NANO_PER_USD, Bools, Floats, Ints

AS_CHOSEN = "(what the policy chose)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Mean outcomes by text and candidate; `key` ascends, cost in nano-USD is NaN where unknown."""

    n_candidates: int
    key: Ints
    score: Floats
    cost_nusd: Floats

    def of(self, text: Ints, candidate: Ints) -> tuple[Floats, Floats]:
        """Return score and cost of pairs, (n,) each, NaN for those that are not known."""
        key = text * self.n_candidates + candidate
        at = np.searchsorted(self.key, key)
        at[at == self.key.size] = 0
        found = (text >= 0) & (candidate >= 0)
        if not self.key.size:
            return np.full(text.size, np.nan), np.full(text.size, np.nan)
        found &= self.key[at] == key
        return np.where(found, self.score[at], np.nan), np.where(found, self.cost_nusd[at], np.nan)


def known_outcomes(groups: Iterable[Rows], n_candidates: int) -> Known:
    """Average the graded answers of groups by text and candidate."""
    seen = [_seen(rows) for rows in groups] or [np.empty((0, 4))]
    text, candidate, score, cost = np.concatenate(seen).T
    pair = text.astype(np.int64) * n_candidates + candidate.astype(np.int64)
    key, at, n = np.unique(pair, return_inverse=True, return_counts=True)
    return Known(
        n_candidates=n_candidates,
        key=key,
        score=np.bincount(at, score, key.size) / n,
        cost_nusd=np.bincount(at, cost, key.size) / n,
    )


def comparisons(log: Log) -> tuple[Comparison, ...]:
    """Compare batches, live and shadow calls with always asking each candidate of the log."""
    sources = [rows for rows in log.groups if rows.kind in {"probe", "import"}]
    known = known_outcomes(sources, len(log.candidates))
    by_name = sorted((name, number) for number, name in enumerate(log.candidates))
    found = []
    for rows in log.groups:
        if rows.kind not in {"batch", "live", "shadow"}:
            continue
        for name, number in by_name:
            found.append(_compared(rows, name, np.full(rows.n, number), known))
        if ((rows.served != NONE) & (rows.served != rows.chosen)).any():  # a shadow, or a reserve
            found.append(_compared(rows, AS_CHOSEN, rows.chosen, known))
    return tuple(found)


def full_information(log: Log) -> tuple[FullInformation, ...]:
    """Return every candidate that was probed or imported, on its own and on common queries."""
    found = []
    for rows in log.groups:
        if rows.kind in {"probe", "import"}:
            asked = np.unique(rows.chosen)
            known = known_outcomes([rows], len(log.candidates))
            common = _common_texts(known, asked)
            by_name = sorted((log.candidates[number], int(number)) for number in asked)
            found += [_informed(rows, candidate, known, common) for candidate in by_name]
    return tuple(found)


def _seen(rows: Rows) -> Floats:
    """Return text, candidate, score and cost of the graded answers whose text is known."""
    usable = rows.is_graded & (rows.text >= 0) & (rows.served != NONE)
    columns = [rows.text, rows.served, rows.score, _cost(rows)]
    return np.column_stack([column[usable].astype(np.float64) for column in columns])


def _cost(rows: Rows) -> Floats:
    return np.where(rows.cost_nusd == NONE, np.nan, rows.cost_nusd)


def _compared(rows: Rows, name: str, asked: Ints, known: Known) -> Comparison:
    score, cost = known.of(rows.text, asked)
    is_own = rows.is_graded & (rows.served == asked)
    score = np.where(is_own, rows.score, score)
    cost = np.where(is_own, _cost(rows), cost)
    n_known = int((~np.isnan(score)).sum())
    if n_known < rows.n:
        return Comparison(
            group=group_name(rows),
            candidate=name,
            n_queries=rows.n,
            n_known=n_known,
            is_supported=False,
            reason=_why_not(rows),
        )
    graded, is_priced = rows.is_graded, not np.isnan(cost).any()
    difference = rows.score[graded] - score[graded]
    return Comparison(
        group=group_name(rows),
        candidate=name,
        n_queries=rows.n,
        n_known=n_known,
        is_supported=True,
        cost_usd=exact_usd(round(float(cost.sum()))) if is_priced else None,
        score=mean_interval(rows.text, score),
        saving=_saving(rows, cost),
        n_paired=int(graded.sum()),
        difference=mean_interval(rows.text[graded], difference),
    )


def _saving(rows: Rows, cost: Floats) -> Interval | None:
    """Return 1 - own cost / cost; None where either is unknown or there is nothing to save."""
    own = _cost(rows)
    if not np.isfinite([own, cost]).all() or cost.sum() <= 0:
        return None
    spent = ratio_interval(rows.text, own, cost)
    return Interval(mean=1.0 - spent.mean, low=1.0 - spent.high, high=1.0 - spent.low)


def _why_not(rows: Rows) -> str:
    n_drawn = int((rows.propensity < 1.0).sum())
    if n_drawn:
        why = (
            f"{n_drawn:,} of {rows.n:,} choices were drawn by chance (propensity below 1), from "
            "which this version does not estimate"
        )
    else:
        is_certain = (rows.propensity == 1.0).any()
        why = "nothing else was tried" + (" (propensity 1)" if is_certain else "")
    if (rows.text < 0).all():
        why += ", and without text keys no probe can be matched"
    return why


def _common_texts(known: Known, asked: Ints) -> Ints:
    """Return the texts that all candidates asked have an outcome on."""
    text, n = np.unique(known.key // known.n_candidates, return_counts=True)
    common: Ints = text[n == asked.size]
    return common


def _informed(
    rows: Rows, candidate: tuple[str, int], known: Known, common: Ints
) -> FullInformation:
    name, number = candidate
    mine: Bools = rows.chosen == number
    graded = mine & rows.is_graded
    score, cost = known.of(common, np.full(common.size, number))
    costs = rows.cost_nusd[mine & (rows.cost_nusd != NONE)]
    is_priced = bool(common.size) and not np.isnan(cost).any()
    return FullInformation(
        source="probe" if rows.kind == "probe" else "import",
        candidate=name,
        n_calls=int(mine.sum()),
        n_failed=int((mine & (rows.state == FAILED)).sum()),
        n_graded=int(graded.sum()),
        cost_usd=exact_usd(sum(costs.tolist())),
        n_unpriced=int(mine.sum()) - costs.size,
        score=mean_interval(rows.text[graded], rows.score[graded]),
        n_common=common.size,
        common_score=mean_interval(common, score),
        common_cost_usd=float(cost.mean()) / NANO_PER_USD if is_priced else None,
    )
