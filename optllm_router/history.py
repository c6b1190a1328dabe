"""What people ask of the log: where the money went, what was decided and why, how it moves.

The store answers in its own records, with exact nano-USD; here answers have USD, read well, and
turn into plain JSON values with `to_dict`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

from optllm_router.errors import ConfigError
from optllm_router.ledger import BudgetReport, budget_report
from optllm_router.reconciling import Reconciliation, reconcile
from optllm_router.records import NANO_PER_USD, Attempt, Outcome
from optllm_router.store.base import (
    GroupBy,
    LoggedDecision,
    LoggedEvent,
    PublishedPredictor,
    Store,
    SummaryRow,
)
from optllm_router.store.shares import Override

_REFITS_SEARCHED = 1_000  # for published fronts, past the refits that were kept out


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRow:
    """One group of the history (see `store.base.SummaryRow`), money in USD."""

    key: str
    n_decisions: int
    n_attempts: int
    n_errors: int
    n_graded: int
    mean_score: float | None
    cost_usd: float
    n_estimated: int
    n_unpriced: int
    prompt_tokens: int
    completion_tokens: int
    mean_latency_s: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAttempt:
    """One call to one candidate; `cost_usd` is None where its price is unknown."""

    candidate: str
    status: str
    started_at: datetime
    latency_s: float
    cost_usd: float | None
    estimated: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    streamed: bool
    cache_hit: bool
    response_id: str | None
    price_version: str | None
    error_class: str | None
    error_text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryDecision:
    """One decision: what was asked, chosen and served, why, at what cost, how well.

    `cost_usd` sums the attempts whose cost is known. `score` is the one that counts: feedback
    before graders, then the newest; None while nobody graded.
    """

    decision_id: str
    created_at: datetime
    kind: str
    requested: str
    chosen: str
    served: str | None
    task: str
    tags: tuple[str, ...]
    session_id: str | None
    batch_id: str | None
    policy: str
    reason: str
    predictor_version: str | None
    propensity: float | None
    expected_accuracy: float | None
    expected_cost_usd: float | None
    cost_usd: float
    score: float | None
    prompt: str | None
    attempts: tuple[HistoryAttempt, ...]
    outcomes: tuple[Outcome, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as JSON values, times as ISO text."""
        values: dict[str, Any] = _plain(asdict(self))
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFront:
    """The front that was published with a predictor: (cost in USD, accuracy) per point."""

    version: str
    created_at: datetime
    is_current: bool
    metrics: dict[str, Any]
    points: tuple[tuple[float, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the front as JSON values, the time as ISO text."""
        values: dict[str, Any] = _plain(asdict(self))
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryBatch:
    """Where a batch that survives its process stands.

    Of its `n_items`, `n_answered` have their answer; `n_failed` failed, and `n_interrupted` were
    being asked when their run ended, or are now (`is_running`); the others were never asked.
    `cost_usd` is what all its calls cost, interrupted ones at their forecast.
    """

    batch_id: str
    created_at: datetime
    n_items: int
    n_answered: int
    n_failed: int
    n_interrupted: int
    cost_usd: float
    is_running: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the batch as JSON values, the time as ISO text."""
        values: dict[str, Any] = _plain(asdict(self))
        return values


class History:
    """Questions to the log of one store. Reads only, and always what is there now.

    Args:
        store: the log.
        models: what each candidate's model is called, for bills that name models.
    """

    def __init__(self, store: Store, models: Mapping[str, str] | None = None) -> None:
        self._store = store
        self._models = dict(models or {})

    def summary(
        self,
        by: GroupBy = "candidate",
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        batch_id: str | None = None,
        include_imports: bool = False,
    ) -> list[HistoryRow]:
        """Return counts, tokens, money and mean scores in groups, dearest first.

        Args:
            by: candidate, task, day (UTC), policy, tag, kind or batch.
            since: only decisions from then on; with a time zone.
            until: only decisions before then; with a time zone.
            batch_id: only this batch.
            include_imports: also rows that were imported, which cost us nothing.

        Raises: ConfigError for an unknown group or a time without a time zone.
        """
        if by not in get_args(GroupBy):
            known = ", ".join(get_args(GroupBy))
            raise ConfigError(f"by={by!r} is no group of the history: choose one of {known}.")
        rows = self._store.summary(
            by,
            since=_aware("since", since),
            until=_aware("until", until),
            batch_id=batch_id,
            include_imports=include_imports,
        )
        return [_history_row(row) for row in rows]

    def decisions(  # noqa: PLR0913  # the filters of one question, all optional
        self,
        *,
        limit: int = 50,
        before: datetime | None = None,
        kind: str | None = None,
        task: str | None = None,
        session_id: str | None = None,
        tag: str | None = None,
        batch_id: str | None = None,
    ) -> list[HistoryDecision]:
        """Return the newest decisions first, only those that match all that is given.

        Raises: ConfigError for a negative `limit` or a time without a time zone.
        """
        found = self._store.decisions(
            limit=_count(limit),
            before=_aware("before", before),
            kind=kind,
            task=task,
            session_id=session_id,
            tag=tag,
            batch_id=batch_id,
        )
        return [_history_decision(logged) for logged in found]

    def decision(self, reference: str) -> HistoryDecision:
        """Return one decision by its id or the id of a response to it.

        Raises: UnknownDecisionError.
        """
        return _history_decision(self._store.decision(self._store.find(reference)))

    def batch(self, batch_id: str) -> HistoryBatch | None:
        """Return where a batch stands; None where no answers are kept under that name."""
        found = self._store.batch(batch_id)
        if found is None:
            return None
        return HistoryBatch(
            batch_id=found.id,
            created_at=found.created_at,
            n_items=found.n_items,
            n_answered=found.n_answered,
            n_failed=found.n_failed,
            n_interrupted=found.n_open,
            cost_usd=_usd(found.spent_nusd),
            is_running=found.is_held,
        )

    def reconcile(
        self, path: str | Path, *, only: Collection[str] = (), tolerance: str = "0"
    ) -> Reconciliation:
        """Compare a provider's bill with what the log says, per candidate (or model) and day.

        Args:
            path: a CSV file with the columns `candidate` or `model`, `day` (UTC) and `cost_usd`,
                and `n_calls` and `tokens` where it has them.
            only: the candidates or models to compare; all where it is empty.
            tolerance: what a row may differ by, "0.05" USD or "2%" of the larger side.

        Raises: ConfigError for a file with mistakes, with their lines.
        """
        return reconcile(self._store, path, models=self._models, only=only, tolerance=tolerance)

    def budgets(self, *, session_id: str | None = None) -> list[BudgetReport]:
        """Return where the shared budgets stand, by name, also those that no process has now.

        Of a budget per session it is the session given, else the fullest one.
        """
        return [budget_report(one) for one in self._store.budgets(session_id=session_id)]

    def budget_overrides(self, *, limit: int = 50) -> list[Override]:
        """Return the newest overrides of limits first, also those out of date."""
        return self._store.overrides(limit=_count(limit))

    def fronts(self, *, limit: int = 20) -> list[HistoryFront]:
        """Return the fronts that were published, newest first: how the trade-off moved."""
        newest = self._store.predictors(limit=_REFITS_SEARCHED)
        found = [_history_front(one) for one in newest if one.status != "kept_out"]
        return found[: _count(limit)]

    def predictors(self, *, limit: int = 20) -> list[PublishedPredictor]:
        """Return the refits, newest first, also those kept out because they were worse."""
        return self._store.predictors(limit=_count(limit))

    def events(self, *, limit: int = 50) -> list[LoggedEvent]:
        """Return the newest events first: faults, refits, overshoots."""
        return self._store.events(limit=_count(limit))


def _history_row(row: SummaryRow) -> HistoryRow:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return HistoryRow(cost_usd=_usd(values.pop("cost_nusd")), **values)


def _history_decision(logged: LoggedDecision) -> HistoryDecision:
    decision = logged.decision
    expected, spent = decision.expected_cost_nusd, sum(a.cost_nusd or 0 for a in logged.attempts)
    own = {"decision_id", "expected_cost_usd", "cost_usd", "score", "attempts", "outcomes"}
    shared = [field.name for field in fields(HistoryDecision) if field.name not in own]
    return HistoryDecision(
        decision_id=decision.id,
        expected_cost_usd=None if expected is None else _usd(expected),
        cost_usd=_usd(spent),
        score=_score(logged.outcomes),
        attempts=tuple(map(_history_attempt, logged.attempts)),
        outcomes=logged.outcomes,
        **{name: getattr(decision, name) for name in shared},
    )


def _history_attempt(attempt: Attempt) -> HistoryAttempt:
    cost = attempt.cost_nusd
    shared = [field.name for field in fields(HistoryAttempt) if field.name != "cost_usd"]
    return HistoryAttempt(
        cost_usd=None if cost is None else _usd(cost),
        **{name: getattr(attempt, name) for name in shared},
    )


def _history_front(predictor: PublishedPredictor) -> HistoryFront:
    return HistoryFront(
        version=predictor.version,
        created_at=predictor.created_at,
        is_current=predictor.status == "published",
        metrics=dict(predictor.metrics),
        points=predictor.front,
    )


def _score(outcomes: tuple[Outcome, ...]) -> float | None:
    """Return the score that counts, as the store does: feedback first, then the newest."""
    ranked = sorted(outcomes, key=lambda one: one.source)
    ranked.sort(key=lambda one: (one.source == "feedback", one.created_at), reverse=True)
    return ranked[0].score if ranked else None


def _usd(nano_usd: int) -> float:
    return nano_usd / NANO_PER_USD


def _aware(name: str, moment: datetime | None) -> datetime | None:
    if moment is not None and moment.tzinfo is None:
        raise ConfigError(
            f"{name}={moment!r} has no time zone: write `{name}=moment.astimezone()` for local "
            "time, or construct it with `tzinfo=datetime.UTC`."
        )
    return moment


def _count(limit: int) -> int:
    if limit < 0:
        raise ConfigError(f"limit={limit!r} is negative: pass how many to return at most.")
    return limit


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
