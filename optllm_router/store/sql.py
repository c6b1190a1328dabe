"""The log on SQLite and PostgreSQL: the store's contract, kept with SQLAlchemy Core.

What each question and each change looks like in SQL stands in `queries`, `summary` and `writes`;
here is only where a transaction begins and ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Literal

from sqlalchemy import ColumnElement, Connection, select

from optllm_router.errors import ConfigError, StoreError, UnknownDecisionError
from optllm_router.records import (
    Attempt,
    BudgetLine,
    Decision,
    Outcome,
    TokenPrice,
    TrainingRow,
)
from optllm_router.store import batches, budgets, queries, rows, schema, tables, writes
from optllm_router.store.base import (
    BatchItem,
    ForgetReport,
    GroupBy,
    LoggedBatch,
    LoggedDecision,
    LoggedEvent,
    PublishedPredictor,
    SpentDay,
    SummaryRow,
)
from optllm_router.store.database import Clock, Database, Durability, sqlite_file
from optllm_router.store.faults import shown
from optllm_router.store.money import Books, TakenError
from optllm_router.store.shares import (
    BudgetStatus,
    ClaimedBudget,
    Override,
    Reply,
    Reserve,
    SweepReport,
)
from optllm_router.store.spending import spent_by_day
from optllm_router.store.summary import summary

_LOG = logging.getLogger(__name__)


def open_store(
    url: str, *, durability: Durability = "normal", clock: Clock | None = None
) -> SqlStore:
    """Open the log at a database URL; a SQLite file is created or upgraded as needed.

    Args:
        url: `sqlite:///optllm.db`, `sqlite://` for one in memory, or
            `postgresql://user@host/database`.
        durability: "normal" survives the death of the process, "full" also power loss.
        clock: what time it is for windows and leases; None asks the database.

    Raises: SchemaVersionError when the schema is newer than this code, or older and not SQLite;
    StoreError when the database cannot be opened, read and written.
    """
    if durability not in {"normal", "full"}:
        raise ConfigError(f"durability={durability!r} is not known: write 'normal' or 'full'.")
    database = Database(url, durability=durability, clock=clock)
    try:
        _check_file(database)
        schema.prepare(database)
    except BaseException:
        database.close()
        raise
    return SqlStore(database)


class SqlStore:
    """The store's contract (see `base.Store`) over one database that is ready to use."""

    def __init__(self, database: Database) -> None:
        self.url = database.url.render_as_string(hide_password=False)
        self._database = database
        self._statements = rows.Statements(database.engine.dialect)
        self._of_items = batches.Statements(database.engine.dialect)
        self._books = Books(database, self._statements)

    def record(
        self, decision: Decision, attempts: Sequence[Attempt], *, item: BatchItem | None = None
    ) -> None:
        """Write one decision with its attempts, and claim a batch's item; again changes nothing."""
        with self._database.raw_writing() as cursor:
            writes.insert_entries(cursor, self._statements, [(decision, attempts)])
            if item is not None:
                batches.write_item(cursor, self._of_items, item)

    def record_many(
        self,
        entries: Sequence[tuple[Decision, Sequence[Attempt]]],
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Write many decisions, attempts and outcomes in one transaction."""
        with self._database.writing() as connection:
            cursor = connection.connection.cursor()
            writes.insert_entries(cursor, self._statements, entries)
            cursor.close()
            writes.write_outcomes(connection, self._statements, outcomes)

    def settle(
        self,
        attempt: Attempt,
        *,
        served: str | None,
        item: BatchItem | None = None,
        reason: str | None = None,
        propensity: float | None = None,
    ) -> None:
        """Complete an open attempt, book its reservation, and keep a batch item's answer."""
        answered = rows.ServedRow(attempt.decision_id, served, reason, propensity)
        with self._database.raw_writing() as cursor:
            said = self._books.settle(cursor, attempt, answered)
            if item is not None:
                batches.write_item(cursor, self._of_items, item)
        _warn(said)

    def register(
        self, worker: str, lines: Sequence[BudgetLine], *, lease_s: float
    ) -> tuple[ClaimedBudget, ...]:
        """Claim budgets for a worker; the claims that it had before are replaced."""
        with self._database.writing() as connection:
            now = self._now(connection)
            claimed, said = budgets.register(connection, worker, lines, now, lease_s)
        _warn(said)
        return claimed

    def heartbeat(self, worker: str, *, lease_s: float) -> bool:
        """Renew a worker's lease; return whether the worker is there."""
        with self._database.raw_writing() as cursor:
            return self._books.renew(cursor, worker, lease_s)

    def retire(self, worker: str) -> None:
        """Remove a worker and its claims, unless it has live reservations."""
        with self._database.raw_writing() as cursor:
            self._books.retire(cursor, worker)

    def reserve(
        self,
        decision: Decision,
        attempt: Attempt,
        wanted: Reserve,
        *,
        item: BatchItem | None = None,
    ) -> Reply:
        """Write a decision with an open attempt, and reserve for it, where it fits everywhere."""
        while True:
            try:
                with self._database.raw_writing() as cursor:
                    reply = self._books.reserve(cursor, decision, attempt, wanted)
                    if item is not None and reply.verdict == "reserved":
                        batches.write_item(cursor, self._of_items, item)
                    return reply
            except TakenError:
                continue

    def sweep(self) -> SweepReport:
        """Settle what dead workers had reserved, and remove them; each in its own transaction."""
        worker, total = "", SweepReport(0, 0, 0)
        while True:
            with self._database.raw_writing() as cursor:
                swept = self._books.sweep(cursor, worker)
            if swept is None:
                return total
            worker, report, said = swept
            total = total.plus(report)
            _warn(said)

    def budgets(self, *, session_id: str | None = None) -> list[BudgetStatus]:
        """Return where all budgets stand, by name."""
        with self._database.reading() as connection:
            return budgets.statuses(connection, self._now(connection), session_id)

    def set_override(self, override: Override) -> None:
        """Have another limit hold until a date."""
        with self._database.writing() as connection:
            budgets.set_override(connection, override, self._now(connection))

    def overrides(self, *, limit: int = 50) -> list[Override]:
        """Return the newest overrides first, also those out of date."""
        with self._database.reading() as connection:
            return budgets.overrides(connection, limit)

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Write outcomes; return how many were new or changed a score."""
        with self._database.writing() as connection:
            return writes.write_outcomes(connection, self._statements, outcomes)

    def find(self, reference: str) -> str:
        """Return the decision id for a decision id or a response id."""
        with self._database.reading() as connection:
            return queries.find(connection, reference)

    def decision(self, decision_id: str) -> LoggedDecision:
        """Return one decision with everything that came of it."""
        with self._database.reading() as connection:
            found = queries.logged_decisions(connection, [tables.decisions.c.id == decision_id], 1)
        if not found:
            raise UnknownDecisionError(decision_id)
        return found[0]

    def decisions(  # noqa: PLR0913  # the filters of one query, all optional
        self,
        *,
        limit: int = 50,
        before: datetime | None = None,
        kind: str | None = None,
        task: str | None = None,
        session_id: str | None = None,
        tag: str | None = None,
        batch_id: str | None = None,
    ) -> list[LoggedDecision]:
        """Return the newest decisions first, filtered."""
        equal = {"kind": kind, "task": task, "session_id": session_id, "batch_id": batch_id}
        conditions = _equal_to(equal)
        if before is not None:
            conditions.append(tables.decisions.c.created_at < before)
        if tag is not None:
            conditions.append(writes.tagged(tag))
        with self._database.reading() as connection:
            return queries.logged_decisions(connection, conditions, limit)

    def training_rows(
        self, *, limit: int = 100_000, graded_of: str | None = None
    ) -> list[TrainingRow]:
        """Return the newest answers that learning may use, oldest first."""
        with self._database.reading() as connection:
            return queries.training_rows(connection, limit, graded_of)

    def n_graded(self, *, since: datetime | None = None) -> int:
        """Return how many of the `training_rows` are graded, or were after `since`."""
        with self._database.reading() as connection:
            return queries.n_graded(connection, since)

    def publish(  # noqa: PLR0913  # what one predictor is, by keyword
        self,
        *,
        version: str,
        artifact: bytes,
        metrics: Mapping[str, object],
        front: Sequence[tuple[float, float]],
        status: Literal["published", "kept_out"] = "published",
        replaces: str | None = None,
    ) -> bool:
        """Write a predictor; "published" makes it the current one."""
        row = {
            "version": version,
            "created_at": datetime.now(UTC),
            "status": status,
            "metrics": dict(metrics),
            "artifact": artifact,
        }
        with self._database.writing() as connection:
            return writes.publish(connection, row, front, replaces=replaces)

    def current_predictor(self) -> str | None:
        """Return the version of the published predictor, None when there is none."""
        query = select(tables.predictors.c.version).where(tables.predictors.c.status == "published")
        with self._database.reading() as connection:
            version: str | None = connection.execute(query).scalar_one_or_none()
        return version

    def artifact(self, version: str) -> bytes:
        """Return a predictor's bytes."""
        query = select(tables.predictors.c.artifact).where(tables.predictors.c.version == version)
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise StoreError(
                f"the log {shown(self._database.url)!r} has no predictor {version!r}: "
                "`predictors()` lists those it has."
            )
        return bytes(found)

    def predictors(self, *, limit: int = 20) -> list[PublishedPredictor]:
        """Return the newest predictors first."""
        with self._database.reading() as connection:
            return queries.published(connection, limit)

    def price_version(self, prices: Mapping[str, TokenPrice | None]) -> str:
        """Return the version of a price list, writing it when it is new."""
        values = rows.price_list(prices)
        version = rows.price_list_version(values)
        row = {"version": version, "created_at": datetime.now(UTC), "prices": values}
        with self._database.writing() as connection:
            connection.execute(rows.insert_new(connection.dialect, tables.prices), row)
        return version

    def prices(self, version: str) -> Mapping[str, TokenPrice | None]:
        """Return a price list."""
        query = select(tables.prices.c.prices).where(tables.prices.c.version == version)
        with self._database.reading() as connection:
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise StoreError(
                f"the log {shown(self._database.url)!r} has no price list {version!r}: "
                "`price_version()` writes one."
            )
        return rows.prices_of(found)

    def summary(
        self,
        by: GroupBy,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        batch_id: str | None = None,
        include_imports: bool = False,
    ) -> list[SummaryRow]:
        """Return the history in groups, dearest first, from `since` until before `until`."""
        conditions = _equal_to({"batch_id": batch_id})
        if since is not None:
            conditions.append(tables.decisions.c.created_at >= since)
        if until is not None:
            conditions.append(tables.decisions.c.created_at < until)
        if not include_imports:
            conditions.append(tables.decisions.c.kind != "import")
        with self._database.reading() as connection:
            return summary(connection, by, conditions)

    def spent_by_day(self, first: date, last: date) -> list[SpentDay]:
        """Return what candidates cost per UTC day, both days included."""
        with self._database.reading() as connection:
            return spent_by_day(connection, first, last)

    def forget(
        self,
        *,
        session_id: str | None = None,
        tag: str | None = None,
        before: datetime | None = None,
        batch_id: str | None = None,
    ) -> ForgetReport:
        """Erase decisions, their attempts, outcomes and answers, and texts nothing refers to."""
        with self._database.writing() as connection:
            report = writes.forget(
                connection, session_id=session_id, tag=tag, before=before, batch_id=batch_id
            )
        self._database.empty_write_ahead_log()
        return report

    def hold_batch(self, batch_id: str, *, owner: str, request_keys: bytes) -> bool:
        """Make a batch somebody's, beginning it where it is new; return whether it succeeded."""
        with self._database.writing() as connection:
            return batches.hold(connection, batch_id, owner, request_keys)

    def renew_batch(self, batch_id: str, *, owner: str) -> bool:
        """Extend an owner's lease; return whether the batch is still its own."""
        with self._database.writing() as connection:
            return batches.renew(connection, batch_id, owner)

    def release_batch(self, batch_id: str, *, owner: str) -> None:
        """End an owner's lease."""
        with self._database.writing() as connection:
            batches.release(connection, batch_id, owner)

    def batch(self, batch_id: str) -> LoggedBatch | None:
        """Return where a batch stands; None where there is none whose answers are kept."""
        with self._database.reading() as connection:
            return batches.logged_batch(connection, batch_id)

    def batch_items(self, batch_id: str) -> list[BatchItem]:
        """Return the items of a batch that were ever asked, in their order."""
        with self._database.reading() as connection:
            return list(batches.items(connection, batch_id))

    def forget_answers(self, batch_id: str) -> int:
        """Erase a batch's answers, so that it begins anew; return how many."""
        with self._database.writing() as connection:
            n_answers = batches.forget_answers(connection, batch_id)
        self._database.empty_write_ahead_log()
        return n_answers

    def log_event(self, kind: str, message: str, facts: Mapping[str, object]) -> None:
        """Write an event, at this machine's time."""
        row = {"at": datetime.now(UTC), "kind": kind, "message": message, "facts": dict(facts)}
        with self._database.writing() as connection:
            connection.execute(tables.events.insert(), row)

    def events(self, *, limit: int = 50) -> list[LoggedEvent]:
        """Return the newest events first."""
        with self._database.reading() as connection:
            return queries.logged_events(connection, limit)

    def close(self) -> None:
        """Release connections; calling it twice is fine."""
        self._database.close()

    def _now(self, connection: Connection) -> datetime:
        return self._database.now(connection.connection.cursor())


def _warn(said: Sequence[str]) -> None:
    for message in said:
        _LOG.warning(message)


def _equal_to(wanted: Mapping[str, str | None]) -> list[ColumnElement[bool]]:
    return [
        tables.decisions.c[name] == value for name, value in wanted.items() if value is not None
    ]


def _check_file(database: Database) -> None:
    """Say plainly what SQLite only calls unable to open."""
    file = sqlite_file(database.url)
    if file is None:
        return
    if file.is_dir():
        raise StoreError(
            f"store={shown(database.url)!r} is a folder: name a file in it, such as "
            f"`sqlite:///{file / 'optllm.db'}`."
        )
    if not file.parent.is_dir():
        raise StoreError(
            f"store={shown(database.url)!r} is in the folder {str(file.parent)!r}, which does not "
            "exist: create it, or set `store` to a file elsewhere."
        )
