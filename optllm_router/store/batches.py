"""Batches that survive their process: one owner at a time, and the answers of finished items.

A batch has an owner while somebody works on it: a name with a lease by the database's clock. Every
item is claimed in the transaction that writes its open attempt, and a claim succeeds only for the
owner: whoever lost the batch, even while it slept, asks nothing more. What is known of an item
changes in the transaction that completes its attempt, so an answer that is paid for is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    Dialect,
    Select,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal_column,
    or_,
    select,
    update,
)

from optllm_router.errors import BatchBusyError
from optllm_router.store import rows
from optllm_router.store.base import BatchItem, LoggedBatch
from optllm_router.store.tables import attempts, batch_items, batches, decisions

Cursor: TypeAlias = Any  # a DBAPI cursor; PEP 249 has no type of its own

LEASE_S = 10.0  # how long a batch stays its owner's without a sign of life
KEY_BYTES = 16  # per request in `batches.request_keys`

LOST = "LeaseExpired"  # the error class of a call whose process ended while it was under way
_LOST_TEXT = "the process that asked ended before the answer came; the cost is the forecast"
_READ_AT_ONCE = 500  # answers can be long


class Statements:
    """What runs once per item, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.renew = rows.Prepared(_renew(dialect), dialect)
        self.claim = rows.Prepared(_claim(dialect), dialect)
        self.conclude = rows.Prepared(_conclude(), dialect)


def write_item(cursor: Cursor, statements: Statements, item: BatchItem) -> None:
    """Claim an item ("open"), or write down what became of it.

    Raises: BatchBusyError for a claim in a batch that is not its owner's (any more).
    """
    if item.status != "open":
        cursor.execute(statements.conclude.sql, statements.conclude.bind(item))
        return
    cursor.execute(statements.renew.sql, statements.renew.bind(item))
    if not cursor.rowcount:
        raise BatchBusyError(
            f"the batch {item.batch_id!r} was taken over by another run, or forgotten, while this "
            "one was not heard of: it asks nothing more",
            batch_id=item.batch_id,
        )
    cursor.execute(statements.claim.sql, statements.claim.bind(item))


def hold(connection: Connection, batch_id: str, owner: str, request_keys: bytes) -> bool:
    """Make a batch somebody's, beginning it where it is new; return whether that succeeded.

    What earlier owners left under way is settled at its forecast.
    """
    row = {"id": batch_id, "created_at": datetime.now(UTC), "request_keys": request_keys}
    connection.execute(rows.insert_new(connection.dialect, batches), row)
    now, alive_until = _now(connection.dialect), batches.c.alive_until
    is_free = or_(batches.c.owner.is_(None), batches.c.owner == owner, alive_until < now)
    taken = connection.execute(
        update(batches)
        .where(batches.c.id == batch_id, is_free)
        .values(owner=owner, alive_until=now + LEASE_S)
    )
    if not taken.rowcount:
        return False
    connection.execute(
        update(attempts)
        .where(attempts.c.status == "open", attempts.c.decision_id.in_(_open_items(batch_id)))
        .values(status="abandoned", estimated=True, error_class=LOST, error_text=_LOST_TEXT)
    )
    return True


def renew(connection: Connection, batch_id: str, owner: str) -> bool:
    """Extend an owner's lease; return whether the batch is still its own."""
    extended = connection.execute(
        update(batches)
        .where(batches.c.id == batch_id, batches.c.owner == owner)
        .values(alive_until=_now(connection.dialect) + LEASE_S)
    )
    return bool(extended.rowcount)


def release(connection: Connection, batch_id: str, owner: str) -> None:
    """Let go of a batch, so that the next run need not wait for the lease to end."""
    connection.execute(
        update(batches)
        .where(batches.c.id == batch_id, batches.c.owner == owner)
        .values(owner=None, alive_until=None)
    )


def logged_batch(connection: Connection, batch_id: str) -> LoggedBatch | None:
    """Return what is known of a batch; None where there is none of that name."""
    is_held = func.coalesce(batches.c.alive_until >= _now(connection.dialect), false())
    query = select(batches, is_held.label("is_held")).where(batches.c.id == batch_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    counted = (
        select(batch_items.c.status, func.count().label("n"))
        .where(batch_items.c.batch_id == batch_id)
        .group_by(batch_items.c.status)
    )
    counts = {row.status: int(row.n) for row in connection.execute(counted)}
    return LoggedBatch(
        id=batch_id,
        created_at=row["created_at"],
        request_keys=bytes(row["request_keys"]),
        n_items=len(row["request_keys"]) // KEY_BYTES,
        n_answered=counts.get("answered", 0),
        n_failed=counts.get("failed", 0),
        n_open=counts.get("open", 0),
        spent_nusd=_spent(connection, batch_id, row["created_at"]),
        owner=row["owner"],
        alive_until=row["alive_until"],
        is_held=bool(row["is_held"]),
    )


def items(connection: Connection, batch_id: str) -> Iterator[BatchItem]:
    """Yield the items of a batch that were ever asked, in their order."""
    query = (
        select(batch_items)
        .where(batch_items.c.batch_id == batch_id)
        .order_by(batch_items.c.item)
        .execution_options(yield_per=_READ_AT_ONCE)
    )
    for row in connection.execute(query).mappings():
        yield BatchItem(**row)


def forget_answers(connection: Connection, batch_id: str) -> int:
    """Erase a batch's answers and the batch itself; its decisions stay. Return how many.

    Raises: BatchBusyError while somebody works on it.
    """
    found = logged_batch(connection, batch_id)
    if found is not None and found.is_held:
        raise BatchBusyError(
            f"a run is working on the batch {batch_id!r}, or was killed less than {LEASE_S:.0f} s "
            "ago: wait for it to end",
            batch_id=batch_id,
        )
    n_answers = connection.execute(
        delete(batch_items).where(
            batch_items.c.batch_id == batch_id, batch_items.c.status == "answered"
        )
    ).rowcount
    connection.execute(delete(batches).where(batches.c.id == batch_id))
    return n_answers


def erase_answers_of(connection: Connection, gone: Select[Any]) -> int:
    """Erase the answers of decisions that are about to go; return how many."""
    of_them = batch_items.c.decision_id.in_(gone)
    return connection.execute(
        delete(batch_items).where(of_them, batch_items.c.status == "answered")
    ).rowcount


def erase_empty(connection: Connection, batch_id: str | None) -> None:
    """Erase the batches of which no item is left and that nobody works on; one in any case."""
    has_items = exists().where(batch_items.c.batch_id == batches.c.id)
    is_idle = or_(batches.c.alive_until.is_(None), batches.c.alive_until < _now(connection.dialect))
    connection.execute(delete(batches).where(or_(batches.c.id == batch_id, ~has_items & is_idle)))


def _spent(connection: Connection, batch_id: str, since: datetime) -> int:
    """Sum what the batch's calls have cost since it began, those under way at their forecast."""
    query = (
        select(func.coalesce(func.sum(attempts.c.cost_nusd), literal_column("0")))
        .join_from(decisions, attempts, attempts.c.decision_id == decisions.c.id)
        .where(decisions.c.batch_id == batch_id, decisions.c.created_at >= since)
    )
    return int(connection.execute(query).scalar_one())


def _open_items(batch_id: str) -> Select[Any]:
    return select(batch_items.c.decision_id).where(
        batch_items.c.batch_id == batch_id, batch_items.c.status == "open"
    )


def _now(dialect: Dialect) -> ColumnElement[float]:
    """Seconds since 1970 by the database's clock, which its users share."""
    if dialect.name == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)", type_=_SECONDS)
    return literal_column("extract(epoch from clock_timestamp())::float8", type_=_SECONDS)


_SECONDS = batches.c.alive_until.type


def _renew(dialect: Dialect) -> Any:
    return (
        update(batches)
        .where(batches.c.id == bindparam("batch_id"), batches.c.owner == bindparam("owner"))
        .values(alive_until=_now(dialect) + literal_column(str(LEASE_S)))
    )


def _claim(dialect: Dialect) -> Any:
    statement = rows.insert(dialect, batch_items)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(batch_items.primary_key),
        set_={"decision_id": new.decision_id, "status": new.status, "answer": new.answer},
    )


def _conclude() -> Any:
    """Only of the call that holds the item: a later run may have asked it again meanwhile."""
    names = ("batch_id", "item", "decision_id")
    return (
        update(batch_items)
        .where(*(batch_items.c[name] == bindparam(name) for name in names))
        .values(status=bindparam("status"), answer=bindparam("answer"))
    )
