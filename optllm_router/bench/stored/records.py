"""What a log says, as records of plain values: money as decimal text to the nano-USD."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from optllm_router.core.evaluation import Interval

GroupKind = Literal["batch", "live", "pin", "shadow", "probe", "import"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One served batch, or everything else of one kind (routed live calls: of one policy).

    `n_unfinished` decisions were under way when the log was read, or their process was killed.
    `cost_usd` sums all attempts whose cost is known, those of failed calls too: `n_unpriced`
    attempts have none, and `estimated_usd` of it, of `n_estimated` attempts, was forecast or
    counted here instead of reported. `score` is the mean over the `n_graded` decisions, its
    interval over their `n_texts` distinct texts (NaN ends for fewer than two); None for none.

    `score_least` and `score_most` are what the mean over *all* decisions can be, where a failed one
    counts 0 and an ungraded one anything from 0 to 1 (worst-case bounds: Manski, American Economic
    Review 80(2), 1990). They are equal where every answer is graded.
    """

    name: str
    kind: GroupKind
    batch_id: str | None
    policy: str
    first_at: datetime
    last_at: datetime
    n_decisions: int
    n_answered: int
    n_failed: int
    n_unfinished: int
    n_attempts: int
    cost_usd: str
    n_estimated: int
    estimated_usd: str
    n_unpriced: int
    n_graded: int
    coverage: float
    n_texts: int
    score: Interval | None
    score_least: float
    score_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Always asking one candidate, on the queries of a group.

    Supported only where all `n_queries` have the candidate's graded outcome; where only `n_known`
    have it, `reason` says why, and nothing is estimated. `cost_usd` and `score` are those of always
    asking the candidate. `saving` is 1 - the group's cost / `cost_usd`, None where a cost is
    unknown; `difference` is the group's score minus the candidate's over the `n_paired` queries
    that the group has graded. Both intervals are paired.
    """

    group: str
    candidate: str
    n_queries: int
    n_known: int
    is_supported: bool
    reason: str = ""
    cost_usd: str | None = None
    score: Interval | None = None
    saving: Interval | None = None
    n_paired: int = 0
    difference: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FullInformation:
    """One candidate over all probes, or over all imported rows.

    `score` is over its `n_graded` answers, `cost_usd` the sum of its calls with a known cost. The
    fields with `common` are over the `n_common` distinct texts that every candidate was graded on,
    so they compare candidates on the same queries; a text asked more than once counts once, with
    its means. `common_cost_usd` is per query, None where a cost is unknown.
    """

    source: Literal["probe", "import"]
    candidate: str
    n_calls: int
    n_failed: int
    n_graded: int
    cost_usd: str
    n_unpriced: int
    score: Interval | None
    n_common: int
    common_score: Interval | None
    common_cost_usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What was expected of a group when it was decided, against what came.

    Scores over the `n_scored` decisions with an expectation of who served and with a grade;
    `difference` is graded minus expected. Costs over the `n_costed` answered decisions with an
    expectation whose bill is known, reported, and from no cache; `cost_error` is actual / expected
    minus 1. None where n is 0, or nothing was expected to be paid.
    """

    group: str
    n_scored: int
    expected_score: float | None
    graded_score: float | None
    difference: Interval | None
    n_costed: int
    expected_usd: str
    actual_usd: str
    cost_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """What a log says of its graded decisions; groups newest first, batches before the others."""

    source: str
    n_decisions: int
    n_graded: int
    groups: tuple[Group, ...]
    comparisons: tuple[Comparison, ...]
    full_information: tuple[FullInformation, ...]
    forecasts: tuple[Forecast, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: money as text, times as ISO text, numbers that are none as None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def exact_usd(nano_usd: int) -> str:
    """Write nano-USD in USD, all nine places."""
    return f"{Decimal(nano_usd).scaleb(-9):f}"


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
