"""The history in groups: counts, tokens, exact money, mean score.

Two groupings are merged, because an attempt and a decision are different things to count: money
and tokens come from attempts, scores from decisions. Grouped by candidate, an attempt belongs to
the candidate that it asked, a decision to the one that served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    FromClause,
    Integer,
    String,
    case,
    func,
    literal_column,
    select,
)

from optllm_router.store.base import GroupBy, SummaryRow
from optllm_router.store.queries import graded_score
from optllm_router.store.tables import attempts, decision_tags, decisions

_NO_DECISIONS = {"n_decisions": 0, "n_graded": 0, "mean_score": None}
_NO_ATTEMPTS = {
    "n_attempts": 0,
    "n_errors": 0,
    "cost_nusd": 0,
    "n_estimated": 0,
    "n_unpriced": 0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "mean_latency_s": None,
}


def summary(
    connection: Connection, by: GroupBy, conditions: Sequence[ColumnElement[bool]]
) -> list[SummaryRow]:
    """Return one row per group of the decisions that meet all conditions, dearest first.

    Groups of equal cost stand in the order of their keys.
    """
    decided = _decided(connection, by, conditions)
    tried = _tried(connection, by, conditions)
    found = [
        SummaryRow(key=key, **decided.get(key, _NO_DECISIONS), **tried.get(key, _NO_ATTEMPTS))
        for key in decided.keys() | tried.keys()
    ]
    return sorted(found, key=lambda row: (-row.cost_nusd, row.key))


def _decided(
    connection: Connection, by: GroupBy, conditions: Sequence[ColumnElement[bool]]
) -> dict[str, dict[str, Any]]:
    key = decisions.c.served if by == "candidate" else _key(by, connection.dialect)
    scored = (
        select(_named(key), graded_score().label("score"))
        .select_from(_source(by, decisions))
        .where(*conditions)
        .subquery()
    )
    query = select(
        scored.c.key,
        func.count().label("n_decisions"),
        func.count(scored.c.score).label("n_graded"),
        func.avg(scored.c.score).label("mean_score"),
    ).group_by(scored.c.key)
    return _by_key(connection.execute(query).mappings())


def _tried(
    connection: Connection, by: GroupBy, conditions: Sequence[ColumnElement[bool]]
) -> dict[str, dict[str, Any]]:
    key = attempts.c.candidate if by == "candidate" else _key(by, connection.dialect)
    joined = decisions.join(attempts, attempts.c.decision_id == decisions.c.id)
    named = _named(key)
    query = (
        select(
            named,
            func.count().label("n_attempts"),
            _n(attempts.c.status == "error").label("n_errors"),
            _total(attempts.c.cost_nusd).label("cost_nusd"),
            _n(attempts.c.estimated).label("n_estimated"),
            _n(attempts.c.cost_nusd.is_(None)).label("n_unpriced"),
            _total(attempts.c.prompt_tokens).label("prompt_tokens"),
            _total(attempts.c.completion_tokens).label("completion_tokens"),
            func.avg(case((attempts.c.status == "ok", attempts.c.latency_s))).label(
                "mean_latency_s"
            ),
        )
        .select_from(_source(by, joined))
        .where(*conditions)
        .group_by(named)
    )
    found = _by_key(connection.execute(query).mappings())
    for row in found.values():
        # PostgreSQL sums big integers to a numeric; either way it is exact.
        for name in ("cost_nusd", "prompt_tokens", "completion_tokens"):
            row[name] = int(row[name])
    return found


def _key(by: GroupBy, dialect: Dialect) -> Any:
    if by == "tag":
        return decision_tags.c.tag
    if by == "day":
        return utc_day(dialect, decisions.c.created_at)
    return decisions.c["batch_id" if by == "batch" else by]


def utc_day(dialect: Dialect, moment: ColumnElement[Any]) -> Any:
    """Return the UTC day of a moment as ISO text."""
    if dialect.name == "sqlite":
        return func.strftime("%Y-%m-%d", moment, type_=String)
    return func.to_char(func.timezone("UTC", moment), "YYYY-MM-DD", type_=String)


def _named(key: Any) -> Any:
    return func.coalesce(key, literal_column("''"), type_=key.type).label("key")


def _source(by: GroupBy, joined: FromClause) -> FromClause:
    """Add the tags where they are the groups: a decision counts once under each of its tags."""
    if by != "tag":
        return joined
    return joined.outerjoin(decision_tags, decision_tags.c.decision_id == decisions.c.id)


def _n(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0, type_=Integer)


def _total(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), literal_column("0"))


def _by_key(found: Any) -> dict[str, dict[str, Any]]:
    rows = [dict(row) for row in found]
    return {row.pop("key"): row for row in rows}
