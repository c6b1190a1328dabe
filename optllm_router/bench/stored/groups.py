"""One row per served batch and per other group: counts, exact money, grades."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from optllm_router.bench.stored.reading import ANSWERED, FAILED, UNFINISHED, Rows
from optllm_router.bench.stored.records import Group, exact_usd
from optllm_router.bench.stored.resampling import mean_interval

_NAMED = 3
_NAMES = {"pin": "pins", "shadow": "shadow calls", "probe": "probes", "import": "imported rows"}


def group_name(rows: Rows) -> str:
    """Return what a group is called; no two groups of a log share a name."""
    if rows.kind == "batch":
        return f"batch {rows.batch_id}"
    if rows.kind == "live":
        return f"live calls: {next(iter(rows.policies))}"
    return _NAMES[rows.kind]


def group_row(rows: Rows) -> Group:
    """Sum a group up."""
    graded, failed = rows.is_graded, rows.state == FAILED
    scores, money = rows.score[graded], rows.money
    least = math.fsum(scores)
    n_open = int((~graded & ~failed).sum())
    return Group(
        name=group_name(rows),
        kind=rows.kind,
        batch_id=rows.batch_id,
        policy=_policies(rows.policies),
        first_at=rows.first_at,
        last_at=rows.last_at,
        n_decisions=rows.n,
        n_answered=int((rows.state == ANSWERED).sum()),
        n_failed=int(failed.sum()),
        n_unfinished=int((rows.state == UNFINISHED).sum()),
        n_attempts=money.n_attempts,
        cost_usd=exact_usd(money.cost_nusd),
        n_estimated=money.n_estimated,
        estimated_usd=exact_usd(money.estimated_nusd),
        n_unpriced=money.n_unpriced,
        n_graded=scores.size,
        coverage=scores.size / rows.n,
        n_texts=np.unique(rows.text[graded]).size,
        score=mean_interval(rows.text[graded], scores),
        score_least=least / rows.n,
        score_most=(least + n_open) / rows.n,
    )


def _policies(found: Counter[str]) -> str:
    """Name the most frequent policies of a group, and how many others there are."""
    names = [name for name, _ in found.most_common(_NAMED)]
    more = [f"{len(found) - _NAMED:,} more"] if len(found) > _NAMED else []
    return "; ".join(names + more)
