"""What was expected of a group when it was decided, against what was graded and billed."""

from __future__ import annotations

import numpy as np

from optllm_router.bench.stored.groups import group_name
from optllm_router.bench.stored.reading import ANSWERED, NONE, Log, Rows
from optllm_router.bench.stored.records import Forecast, exact_usd
from optllm_router.bench.stored.resampling import mean_interval


def forecasts(log: Log) -> tuple[Forecast, ...]:
    """Return the groups in which anything was expected, in the log's order."""
    found = [_forecast(rows) for rows in log.groups]
    return tuple(one for one in found if one.n_scored or one.n_costed)


def _forecast(rows: Rows) -> Forecast:
    scored = rows.is_graded & ~np.isnan(rows.expected_score)
    expected, graded = rows.expected_score[scored], rows.score[scored]
    is_billed = rows.is_measured & (rows.cost_nusd != NONE) & (rows.state == ANSWERED)
    costed = is_billed & (rows.expected_nusd != NONE)
    expected_nusd = sum(rows.expected_nusd[costed].tolist())
    actual_nusd = sum(rows.cost_nusd[costed].tolist())
    return Forecast(
        group=group_name(rows),
        n_scored=expected.size,
        expected_score=float(expected.mean()) if expected.size else None,
        graded_score=float(graded.mean()) if graded.size else None,
        difference=mean_interval(rows.text[scored], graded - expected),
        n_costed=int(costed.sum()),
        expected_usd=exact_usd(expected_nusd),
        actual_usd=exact_usd(actual_nusd),
        cost_error=actual_nusd / expected_nusd - 1.0 if expected_nusd else None,
    )
