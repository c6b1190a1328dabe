"""Everything that changes the log, one function per kind of change, inside a transaction.

Written so that doing it twice is the same as doing it once, and so that on PostgreSQL two
processes doing it at once wait for each other instead of losing one's work: rows are locked and
written in the order of their keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    bindparam,
    delete,
    exists,
    insert,
    select,
    text,
    update,
)
from sqlalchemy import Table as SqlTable

from optllm_router.errors import ConfigError, StoreError, UnknownDecisionError
from optllm_router.records import Attempt, Decision, Outcome
from optllm_router.store import batches
from optllm_router.store.base import ForgetReport
from optllm_router.store.rows import Prepared, ServedRow, Statements, TagRow
from optllm_router.store.tables import (
    attempts,
    decision_tags,
    decisions,
    fronts,
    outcome_history,
    outcomes,
    predictors,
    texts,
)

Entry: TypeAlias = tuple[Decision, Sequence[Attempt]]
Cursor: TypeAlias = Any  # a DBAPI cursor; PEP 249 has no type of its own

_CHUNK = 500  # ids per IN list: any database takes as many

_IDS = decisions.c.id.in_(bindparam("ids", expanding=True))
# Two statements, because the second must see what was written while the first one waited.
_LOCK = select(decisions.c.id).where(_IDS).order_by(decisions.c.id).with_for_update(key_share=True)
_OUTCOMES = select(decisions.c.id, outcomes).outerjoin_from(decisions, outcomes).where(_IDS)


def insert_entries(cursor: Cursor, statements: Statements, entries: Sequence[Entry]) -> None:
    """Write decisions with their texts, tags and attempts; rows that exist stay as they are."""
    _run(cursor, statements.text, _distinct_texts(entries))
    _run(cursor, statements.decision, (decision for decision, _ in entries))
    _run(cursor, statements.tag, _tags(entries))
    _run(cursor, statements.attempt, (attempt for _, tried in entries for attempt in tried))


def settle(cursor: Cursor, statements: Statements, attempt: Attempt, served: ServedRow) -> None:
    """Complete an open attempt and say who answered; nothing when it was completed before.

    Raises: UnknownDecisionError when there is no such attempt.
    """
    cursor.execute(statements.settle.sql, statements.settle.bind(attempt))
    if cursor.rowcount:
        _serve(cursor, statements, served)
        return
    cursor.execute(statements.find_attempt.sql, statements.find_attempt.bind(attempt))
    if cursor.fetchone() is None:
        raise UnknownDecisionError(attempt.decision_id)


def complete_reserved(
    cursor: Cursor, statements: Statements, attempt: Attempt, served: ServedRow
) -> None:
    """Complete an attempt whose money is reserved still, so that nobody completed it before.

    One that counts as lost meanwhile is completed, too; one that was forgotten stays so.
    """
    cursor.execute(statements.settle_reserved.sql, statements.settle_reserved.bind(attempt))
    _serve(cursor, statements, served)


def write_outcomes(
    connection: Connection, statements: Statements, graded: Sequence[Outcome]
) -> int:
    """Write outcomes and return how many were new or changed a score.

    Raises: UnknownDecisionError for the first decision that is not in the log; ConfigError for a
    score outside [0, 1].
    """
    _check_scores(graded)
    current = _current_outcomes(connection, graded)
    written: dict[tuple[str, str], Outcome] = {}
    replaced: list[dict[str, object]] = []
    n_changes = 0
    for outcome in graded:
        key = (outcome.decision_id, outcome.source)
        old = current.get(key)
        if old is not None and old.score == outcome.score:
            continue
        if old is not None:
            replaced.append({**_values(old, outcomes), "replaced_at": outcome.created_at})
        current[key] = written[key] = outcome
        n_changes += 1
    _run(connection.connection.cursor(), statements.outcome, written.values())
    if replaced:
        connection.execute(insert(outcome_history), replaced)
    return n_changes


def publish(
    connection: Connection,
    row: Mapping[str, Any],
    front: Sequence[tuple[float, float]],
    *,
    replaces: str | None = None,
) -> bool:
    """Write a predictor's row and its front; a published one retires the one before.

    A version is its content: writing it again adds nothing, but can publish it (again). With
    `replaces` nothing is written once another version is the current one, and False returned.

    Raises: StoreError when the version exists with other bytes.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("LOCK TABLE predictors IN SHARE ROW EXCLUSIVE MODE"))
    version, status = predictors.c.version, predictors.c.status
    if replaces is not None:
        current = connection.execute(select(version).where(status == "published"))
        if current.scalar_one_or_none() != replaces:
            return False
    known = connection.execute(
        select(predictors.c.artifact).where(version == row["version"])
    ).scalar_one_or_none()
    if known is not None and bytes(known) != row["artifact"]:
        raise StoreError(
            f"the predictor {row['version']!r} is in the log with other bytes: a version names one "
            "artifact for ever, give the new one another."
        )
    publishes = row["status"] == "published"
    if publishes:
        others = (status == "published", version != row["version"])
        connection.execute(update(predictors).where(*others).values(status="retired"))
    if known is None:
        connection.execute(insert(predictors), row)
        points = [[float(cost), float(accuracy)] for cost, accuracy in front]
        connection.execute(insert(fronts), {"version": row["version"], "points": points})
    elif publishes:
        connection.execute(
            update(predictors).where(version == row["version"]).values(status="published")
        )
    return True


def forget(
    connection: Connection,
    *,
    session_id: str | None,
    tag: str | None,
    before: datetime | None,
    batch_id: str | None,
) -> ForgetReport:
    """Erase the decisions that meet all conditions given, and what belongs only to them.

    Raises: ConfigError when no condition is given.
    """
    conditions = _conditions(session_id=session_id, tag=tag, before=before)
    if batch_id is not None:
        conditions.append(decisions.c.batch_id == batch_id)
    if not conditions:
        raise ConfigError(
            "forget() was given no condition, and would erase the whole log: pass `session_id`, "
            "`tag`, `before` or `batch_id` (to erase everything, delete the database)."
        )
    gone = select(decisions.c.id).where(*conditions)
    n_answers = batches.erase_answers_of(connection, gone)
    n_attempts = connection.execute(delete(attempts).where(attempts.c.decision_id.in_(gone)))
    n_outcomes = connection.execute(delete(outcomes).where(outcomes.c.decision_id.in_(gone)))
    # Tags, which a condition may look at, and replaced outcomes go with their decision (cascade).
    n_decisions = connection.execute(delete(decisions).where(*conditions))
    unused = ~exists().where(decisions.c.text_key == texts.c.text_key)
    n_texts = connection.execute(delete(texts).where(unused))
    batches.erase_empty(connection, batch_id if len(conditions) == 1 else None)
    return ForgetReport(
        n_decisions=n_decisions.rowcount,
        n_attempts=n_attempts.rowcount,
        n_outcomes=n_outcomes.rowcount,
        n_texts=n_texts.rowcount,
        n_answers=n_answers,
    )


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """Yield distinct values in order, as many at a time as a statement takes."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]


def _run(cursor: Cursor, statement: Prepared, records: Iterable[object]) -> None:
    parameters = [statement.bind(record) for record in records]
    if len(parameters) == 1:
        cursor.execute(statement.sql, parameters[0])
    elif parameters:
        cursor.executemany(statement.sql, parameters)


def _serve(cursor: Cursor, statements: Statements, served: ServedRow) -> None:
    statement = statements.served if served.reason is None else statements.explained
    cursor.execute(statement.sql, statement.bind(served))


def _distinct_texts(entries: Sequence[Entry]) -> list[Decision]:
    """Return one decision per text and amount of knowledge about it, in the order of the keys."""
    distinct = {
        (decision.text_key, decision.features is None, decision.prompt is None): decision
        for decision, _ in entries
        if decision.text_key is not None
    }
    return [distinct[key] for key in sorted(distinct)]


def _tags(entries: Sequence[Entry]) -> Iterator[TagRow]:
    for decision, _ in entries:
        for position, tag in enumerate(decision.tags):
            yield TagRow(decision.id, tag, position)


def _check_scores(graded: Sequence[Outcome]) -> None:
    for outcome in graded:
        if not 0.0 <= outcome.score <= 1.0:
            raise ConfigError(
                f"score={outcome.score!r} from {outcome.source!r} is outside [0, 1]: scale it so "
                "that 0 is worthless and 1 is perfect."
            )


def _current_outcomes(
    connection: Connection, graded: Sequence[Outcome]
) -> dict[tuple[str, str], Outcome]:
    """Return the outcomes that the decisions of `graded` have now, and hold their rows.

    Raises: UnknownDecisionError for the first decision that is not in the log.
    """
    known: set[str] = set()
    current: dict[tuple[str, str], Outcome] = {}
    for some in chunks(outcome.decision_id for outcome in graded):
        if connection.dialect.name != "sqlite":  # where writers do not wait for each other anyway
            connection.execute(_LOCK, {"ids": some})
        for row in connection.execute(_OUTCOMES, {"ids": some}).mappings():
            known.add(row["id"])
            if row["source"] is not None:
                current[row["decision_id"], row["source"]] = _outcome_of(row)
    for outcome in graded:
        if outcome.decision_id not in known:
            raise UnknownDecisionError(outcome.decision_id)
    return current


def _outcome_of(row: RowMapping) -> Outcome:
    return Outcome(**{column.name: row[column.name] for column in outcomes.c})


def _values(record: object, table: SqlTable) -> dict[str, object]:
    return {column.name: getattr(record, column.name) for column in table.c}


def _conditions(
    *, session_id: str | None, tag: str | None, before: datetime | None
) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if session_id is not None:
        conditions.append(decisions.c.session_id == session_id)
    if tag is not None:
        conditions.append(tagged(tag))
    if before is not None:
        conditions.append(decisions.c.created_at < before)
    return conditions


def tagged(tag: str) -> ColumnElement[bool]:
    """Return the condition that a decision carries a tag."""
    return exists().where(decision_tags.c.decision_id == decisions.c.id, decision_tags.c.tag == tag)
