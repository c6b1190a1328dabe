"""The questions asked of the log, one function each, inside a transaction.

A decision's score is decided in one place (`graded_score`): "feedback" wins, then the newest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    ScalarSelect,
    Select,
    and_,
    case,
    exists,
    func,
    select,
)
from sqlalchemy import Table as SqlTable

from optllm_router.errors import UnknownDecisionError
from optllm_router.records import TrainingRow
from optllm_router.store import rows
from optllm_router.store.base import LoggedDecision, LoggedEvent, PublishedPredictor
from optllm_router.store.tables import (
    attempts,
    decision_tags,
    decisions,
    events,
    fronts,
    outcomes,
    predictors,
    texts,
)
from optllm_router.store.writes import chunks

# Aliased here: inside the subqueries below, the plain tables belong to the query around them.
_grades = outcomes.alias("grades")
_tries = attempts.alias("tries")

# What a TrainingRow takes from its decision as it is.
_SHARED = (
    "kind",
    "created_at",
    "task",
    "served",
    "text_key",
    "n_prompt_tokens",
    "n_turns",
    "n_tools",
    "n_images",
    "wants_json",
)


def find(connection: Connection, reference: str) -> str:
    """Return the decision id for a decision id or a response id (the newest, if reused).

    Raises: UnknownDecisionError.
    """
    decision = select(decisions.c.id).where(decisions.c.id == reference)
    answer = (
        select(attempts.c.decision_id)
        .where(attempts.c.response_id == reference)
        .order_by(attempts.c.started_at.desc(), attempts.c.id.desc())
        .limit(1)
    )
    for query in (decision, answer):
        found: str | None = connection.execute(query).scalar_one_or_none()
        if found is not None:
            return found
    raise UnknownDecisionError(reference)


def logged_decisions(
    connection: Connection, conditions: Sequence[ColumnElement[bool]], limit: int
) -> list[LoggedDecision]:
    """Return the newest decisions that meet all conditions, newest first."""
    query = (
        select(decisions, texts.c.features, texts.c.prompt)
        .outerjoin(texts, texts.c.text_key == decisions.c.text_key)
        .where(*conditions)
        .order_by(decisions.c.created_at.desc(), decisions.c.id.desc())
        .limit(limit)
    )
    found = connection.execute(query).mappings().all()
    ids = [row["id"] for row in found]
    tags = _of_decisions(connection, decision_tags, ids, order=["position"])
    tried = _of_decisions(connection, attempts, ids, order=["number", "started_at", "id"])
    graded = _of_decisions(connection, outcomes, ids, order=["created_at", "source"])
    return [
        LoggedDecision(
            decision=rows.decision_of(row, [tag["tag"] for tag in tags[row["id"]]]),
            attempts=tuple(map(rows.attempt_of, tried[row["id"]])),
            outcomes=tuple(map(rows.outcome_of, graded[row["id"]])),
        )
        for row in found
    ]


def training_rows(
    connection: Connection, limit: int, graded_of: str | None = None
) -> list[TrainingRow]:
    """Return the newest answers that learning may use, oldest first.

    With `graded_of`, the graded answers of this candidate only.
    """
    query = _training_query().limit(limit)
    if graded_of is not None:
        graded = decisions.c.id.in_(select(outcomes.c.decision_id))
        query = query.where(decisions.c.served == graded_of, graded)
    # A probe asks every candidate about one text: one copy of its features serves all rows.
    features: dict[str | None, bytes | None] = {}
    found = []
    result = connection.execute(query)
    names = list(result.keys())
    for row in result:
        values = dict(zip(names, row, strict=True))
        values["features"] = features.setdefault(values["text_key"], values["features"])
        found.append(TrainingRow(**values))
    found.reverse()
    return found


def n_graded(connection: Connection, since: datetime | None) -> int:
    """Return how many answers that learning may use are graded, or were after `since`."""
    query = (
        select(func.count(outcomes.c.decision_id.distinct()))
        .join_from(outcomes, decisions, decisions.c.id == outcomes.c.decision_id)
        .where(exists().where(_has_answered(), _tries.c.cache_hit.is_(False)))
    )
    if since is not None:
        query = query.where(outcomes.c.created_at > since)
    return int(connection.execute(query).scalar_one())


def published(connection: Connection, limit: int) -> list[PublishedPredictor]:
    """Return the newest predictors first, without their bytes."""
    columns = [column for column in predictors.c if column.name != "artifact"]
    query = (
        select(*columns, fronts.c.points)
        .outerjoin(fronts, fronts.c.version == predictors.c.version)
        .order_by(predictors.c.created_at.desc(), predictors.c.version.desc())
        .limit(limit)
    )
    return [_predictor_of(row) for row in connection.execute(query).mappings()]


def logged_events(connection: Connection, limit: int) -> list[LoggedEvent]:
    """Return the newest events first."""
    query = (
        select(events.c.at, events.c.kind, events.c.message, events.c.facts)
        .order_by(events.c.at.desc(), events.c.id.desc())
        .limit(limit)
    )
    return [LoggedEvent(**row) for row in connection.execute(query).mappings()]


def graded_score() -> ScalarSelect[Any]:
    """Return a decision's score as a subquery: feedback wins, then the newest; NULL for none."""
    return _of_grade(_grades.c.score)


def _of_grade(column: ColumnElement[Any]) -> ScalarSelect[Any]:
    return (
        select(column)
        .where(_grades.c.decision_id == decisions.c.id)
        .order_by(
            case((_grades.c.source == "feedback", 0), else_=1),
            _grades.c.created_at.desc(),
            _grades.c.source,
        )
        .limit(1)
        .correlate(decisions)
        .scalar_subquery()
    )


def _training_query() -> Select[Any]:
    # By its whole key: so SQLite walks the decisions by time instead of sorting wide rows.
    served = and_(attempts.c.decision_id == decisions.c.id, attempts.c.id == _serving_attempt())
    of_decision = (decisions.c.id.label("decision_id"), *(decisions.c[name] for name in _SHARED))
    of_attempt = (
        _whole_answers_tokens(),
        attempts.c.cost_nusd,
        attempts.c.estimated.label("cost_estimated"),
    )
    of_grade = (graded_score().label("score"), _of_grade(_grades.c.created_at).label("scored_at"))
    return (
        select(*of_decision, texts.c.features, *of_attempt, *of_grade)
        .select_from(decisions)
        .join(attempts, served)
        .outerjoin(texts, texts.c.text_key == decisions.c.text_key)
        .where(attempts.c.cache_hit.is_(False))
        .order_by(decisions.c.created_at.desc(), decisions.c.id.desc())
    )


def _whole_answers_tokens() -> ColumnElement[Any]:
    """Return an answer's tokens; NULL where its reader left before they were known."""
    is_cut = and_(attempts.c.status == "abandoned", attempts.c.estimated)
    return case((is_cut, None), else_=attempts.c.completion_tokens).label("completion_tokens")


def _serving_attempt() -> ScalarSelect[Any]:
    """Return the id of the last attempt that answered for the candidate served, as a subquery."""
    return (
        select(_tries.c.id)
        .where(_has_answered())
        .order_by(_tries.c.number.desc(), _tries.c.id.desc())
        .limit(1)
        .correlate(decisions)
        .scalar_subquery()
    )


def _has_answered() -> ColumnElement[bool]:
    """Return the condition that an attempt answered for the candidate that its decision names."""
    billed = (_tries.c.status == "abandoned") & _tries.c.completion_tokens.is_not(None)
    return and_(
        _tries.c.decision_id == decisions.c.id,
        _tries.c.candidate == decisions.c.served,
        (_tries.c.status == "ok") | billed,
    )


def _of_decisions(
    connection: Connection, table: SqlTable, ids: Iterable[str], *, order: Sequence[str]
) -> dict[str, list[RowMapping]]:
    """Return the rows of a table that belong to decisions, by decision."""
    found: dict[str, list[RowMapping]] = defaultdict(list)
    for some in chunks(ids):
        query = select(table).where(table.c.decision_id.in_(some))
        ordered = query.order_by(*(table.c[name] for name in order))
        for row in connection.execute(ordered).mappings():
            found[row["decision_id"]].append(row)
    return found


def _predictor_of(row: RowMapping) -> PublishedPredictor:
    values = dict(row)
    points = values.pop("points") or []
    return PublishedPredictor(
        **values, front=tuple((float(cost), float(accuracy)) for cost, accuracy in points)
    )
