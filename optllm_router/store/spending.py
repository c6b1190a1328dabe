"""What was spent, per candidate and day: what a provider's bill is compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, case, func, literal_column, select

from optllm_router.store.base import SpentDay
from optllm_router.store.summary import utc_day
from optllm_router.store.tables import attempts, decisions


def spent_by_day(connection: Connection, first: date, last: date) -> list[SpentDay]:
    """Return a row per candidate and UTC day, both days included, in that order.

    A call belongs to the day on which it began. Calls that a cache answered, that failed without
    cost, or that were imported are no calls of a provider's bill.
    """
    day = utc_day(connection.dialect, attempts.c.started_at)
    cost = attempts.c.cost_nusd
    query = (
        select(
            attempts.c.candidate,
            day.label("day"),
            func.count().label("n_calls"),
            _total(cost).label("cost_nusd"),
            _total(case((attempts.c.estimated, cost))).label("estimated_nusd"),
            func.sum(case((cost.is_(None), 1), else_=0), type_=Integer).label("n_unpriced"),
            _total(attempts.c.prompt_tokens + attempts.c.completion_tokens).label("n_tokens"),
        )
        .join_from(attempts, decisions, decisions.c.id == attempts.c.decision_id)
        .where(*_is_billed(), *_within(first, last))
        .group_by(attempts.c.candidate, day)
        .order_by(attempts.c.candidate, day)
    )
    return [_spent_day(dict(row)) for row in connection.execute(query).mappings()]


def _is_billed() -> tuple[ColumnElement[bool], ...]:
    is_free_failure = (attempts.c.status == "error") & (attempts.c.cost_nusd == 0)
    return (
        decisions.c.kind != "import",
        attempts.c.cache_hit.is_(False),
        attempts.c.status != "refused",
        ~is_free_failure,
    )


def _within(first: date, last: date) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    begin = datetime.combine(first, time(), UTC)
    end = datetime.combine(last + timedelta(days=1), time(), UTC)
    return attempts.c.started_at >= begin, attempts.c.started_at < end


def _total(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), literal_column("0"))


def _spent_day(row: dict[str, Any]) -> SpentDay:
    # PostgreSQL sums big integers to a numeric; either way it is exact.
    counts = {name: int(row[name]) for name in row.keys() - {"candidate", "day"}}
    return SpentDay(candidate=row["candidate"], day=date.fromisoformat(row["day"]), **counts)
