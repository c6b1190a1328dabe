"""The statements of money, compiled once: what a reserve, a settle and a sweep ask and change.

An amount is reserved by one statement that also checks that it fits, so that it holds whoever
writes at the same moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Dialect,
    Select,
    Text,
    bindparam,
    cast,
    delete,
    func,
    literal_column,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy import insert as plain_insert

from optllm_router.store.rows import Prepared, insert
from optllm_router.store.tables import (
    accounts,
    attempts,
    budget_claims,
    budget_overrides,
    budgets,
    events,
    reservations,
    workers,
)
from optllm_router.store.types import UtcDateTime, converter


class IdRow(NamedTuple):
    """The key of a worker, a budget or a reservation."""

    key: object


class LeaseRow(NamedTuple):
    """A worker and the moment at which its lease runs out, unless it is renewed."""

    key: str
    alive_until: datetime


class ReservationRow(NamedTuple):
    """An attempt's reservation; `holds` are the accounts that it binds (see `money`)."""

    attempt_id: str
    decision_id: str
    worker_id: str
    amount_nusd: int
    forecast_nusd: int
    created_at: datetime
    holds: object


class HoldRow(NamedTuple):
    """An amount to reserve in one account, and what it may come to there with all the rest."""

    budget: int
    window: str
    amount: int
    most: int


class BookingRow(NamedTuple):
    """What an account gets back and takes when reservations end, and by how many calls."""

    budget: int
    window: str
    returned: int
    spent: int
    over: int
    calls: int


class RangeRow(NamedTuple):
    """The accounts of one budget whose keys lie between two, both included."""

    budget: int
    first: str
    last: str


class SweptRow(NamedTuple):
    """An attempt that was under way when its worker died, and what it is taken to have cost."""

    decision: str
    attempt: str
    cost: int


class EventRow(NamedTuple):
    """A row of `events`."""

    at: datetime
    kind: str
    message: str
    facts: Mapping[str, object]


class MoneyStatements:
    """The statements of money, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._convert = converter(UtcDateTime(), dialect)
        self.present = Prepared(_present(dialect), dialect)
        self.renew = Prepared(_renew(), dialect)
        self.retire = Prepared(_retire(), dialect)
        self.lock_budget = Prepared(_lock_budget(), dialect)
        self.hold = Prepared(_hold(dialect), dialect)
        self.reservation = Prepared(plain_insert(reservations), dialect)
        self.end = Prepared(_end(), dialect)
        self.book = Prepared(_book(), dialect)
        self.sums = Prepared(_sums(), dialect)
        self.warned = Prepared(_warned(), dialect)
        self.event = Prepared(_event(), dialect)
        self.dead = Prepared(_dead(), dialect)
        self.end_all = Prepared(_end_all(), dialect)
        self.swept = Prepared(_swept(), dialect)
        self.bury = Prepared(delete(workers).where(workers.c.id == bindparam("key")), dialect)
        self.name = Prepared(
            select(budgets.c.name).where(budgets.c.id == bindparam("key")), dialect
        )
        self.standings = lru_cache(lambda n: Standings(n, dialect))

    def moment(self, moment: datetime) -> Any:
        """Return a moment as the driver takes and gives it; later ones compare as greater."""
        return moment if self._convert is None else self._convert(moment)


class Standings:
    """One query for the limits and balances of `n` budgets, each in its window.

    A row has the budget's place among them, its limit, what is spent and reserved in the whole
    window, and both together in the account where new money is booked.
    """

    def __init__(self, n: int, dialect: Dialect) -> None:
        compiled: Any = union_all(*map(_standing, range(n))).compile(dialect=dialect)
        self.sql = str(compiled)
        self._names = list(compiled.positiontup) if compiled.positional else None

    def bind(self, values: Mapping[str, object]) -> Any:
        """Return the driver's parameters, from `now`, `worker`, and `budget_0` and so on."""
        return values if self._names is None else tuple([values[name] for name in self._names])


def _standing(place: int) -> Any:
    budget = bindparam(f"budget_{place}", type_=BigInteger())
    claim, override = budget_claims.c, budget_overrides.c
    now = bindparam("now", type_=UtcDateTime())
    is_live = or_(workers.c.alive_until > now, workers.c.id == bindparam("worker", type_=Text()))
    claimed = select(func.min(claim.limit_nusd)).join_from(budget_claims, workers)
    overridden = select(override.limit_nusd).where(override.budget_id == budget)
    overridden = _first(overridden.where(override.until > now).order_by(override.id.desc()))
    spent, reserved = accounts.c.spent_nusd, accounts.c.reserved_nusd
    is_own = accounts.c.window_key == bindparam(f"key_{place}", type_=Text())
    return select(
        literal_column(str(place)),
        func.coalesce(
            overridden.scalar_subquery(),
            claimed.where(claim.budget_id == budget, is_live).scalar_subquery(),
        ),
        _total(func.sum(spent)),
        _total(func.sum(reserved)),
        _total(func.sum(spent + reserved).filter(is_own)),
    ).where(
        accounts.c.budget_id == budget,
        accounts.c.window_key >= bindparam(f"first_{place}", type_=Text()),
        accounts.c.window_key <= bindparam(f"last_{place}", type_=Text()),
    )


def _first(query: Select[Any]) -> Select[Any]:
    """Take the first row, in words without parameters, which `Prepared` has no values for."""
    return query.limit(literal_column("1")).offset(literal_column("0"))


def _total(total: ColumnElement[Any]) -> ColumnElement[int]:
    """Give 0 for no rows, and whole numbers: PostgreSQL sums them to decimals."""
    return cast(func.coalesce(total, literal_column("0")), BigInteger)


def _present(dialect: Dialect) -> Select[Any]:
    """Select a worker's lease and the database's time, and keep sweeps off it."""
    time = literal_column("NULL") if dialect.name == "sqlite" else func.clock_timestamp()
    worker = select(workers.c.alive_until, time).where(workers.c.id == bindparam("key"))
    return worker.with_for_update(read=True, key_share=True)


def _renew() -> Any:
    worker = update(workers).where(workers.c.id == bindparam("key"))
    return worker.values(alive_until=bindparam("alive_until"))


def _retire() -> Any:
    held = select(reservations.c.attempt_id).where(reservations.c.worker_id == workers.c.id)
    return delete(workers).where(workers.c.id == bindparam("key"), ~held.exists())


def _lock_budget() -> Select[Any]:
    """Have reserves of one rolling budget wait for each other: their buckets may differ."""
    budget = select(budgets.c.id).where(budgets.c.id == bindparam("key"))
    return budget.with_for_update(key_share=True)


def _hold(dialect: Dialect) -> Any:
    """Reserve an amount, opening the account if need be; nothing where it is more than `most`."""
    row = accounts.c
    statement = insert(dialect, accounts).values(
        budget_id=bindparam("budget"),
        window_key=bindparam("window"),
        spent_nusd=literal_column("0"),
        reserved_nusd=bindparam("amount"),
        overshoot_nusd=literal_column("0"),
        n_calls=literal_column("0"),
        warned=literal_column("false"),
    )
    amount = statement.excluded.reserved_nusd
    return statement.on_conflict_do_update(
        index_elements=list(accounts.primary_key),
        set_={"reserved_nusd": row.reserved_nusd + amount},
        where=row.spent_nusd + row.reserved_nusd + amount <= bindparam("most", type_=BigInteger()),
    )


def _end() -> Any:
    row = reservations.c
    ended = delete(reservations).where(row.attempt_id == bindparam("key"))
    return ended.returning(row.amount_nusd, row.holds)


def _end_all() -> Any:
    row = reservations.c
    ended = delete(reservations).where(row.worker_id == bindparam("key"))
    return ended.returning(
        row.decision_id, row.attempt_id, row.amount_nusd, row.forecast_nusd, row.holds
    )


def _book() -> Any:
    row = accounts.c
    booked = update(accounts).values(
        reserved_nusd=row.reserved_nusd - bindparam("returned", type_=BigInteger()),
        spent_nusd=row.spent_nusd + bindparam("spent", type_=BigInteger()),
        overshoot_nusd=row.overshoot_nusd + bindparam("over", type_=BigInteger()),
        n_calls=row.n_calls + bindparam("calls", type_=BigInteger()),
    )
    where = (row.budget_id == bindparam("budget"), row.window_key == bindparam("window"))
    return booked.where(*where).returning(row.spent_nusd, row.warned)


def _sums() -> Any:
    """Select what a whole rolling window spent, and how many of its buckets were warned of."""
    row = accounts.c
    n_warned = func.count().filter(row.warned)
    return select(_total(func.sum(row.spent_nusd)), n_warned).where(*_between())


def _warned() -> Any:
    row = accounts.c
    where = (row.budget_id == bindparam("budget"), row.window_key == bindparam("window"))
    return update(accounts).where(*where).values(warned=literal_column("true"))


def _between() -> tuple[ColumnElement[bool], ...]:
    row = accounts.c
    return (
        row.budget_id == bindparam("budget"),
        row.window_key >= bindparam("first"),
        row.window_key <= bindparam("last"),
    )


def _event() -> Any:
    return plain_insert(events).values({name: bindparam(name) for name in EventRow._fields})


def _dead() -> Select[Any]:
    """Select a worker whose lease ran out and that nobody else sweeps or uses at the moment."""
    where = (workers.c.alive_until <= bindparam("alive_until"), workers.c.id > bindparam("key"))
    query = _first(select(workers.c.id).where(*where).order_by(workers.c.id))
    return query.with_for_update(skip_locked=True)


def _swept() -> Any:
    """Complete an attempt whose worker died: it was sent, and is taken to cost its forecast."""
    row = attempts.c
    where = (row.decision_id == bindparam("decision"), row.id == bindparam("attempt"))
    still_open = row.status == literal_column("'open'")
    return (
        update(attempts)
        .where(*where, still_open)
        .values(
            status=literal_column("'abandoned'"),
            error_class=literal_column("'LeaseExpired'"),
            cost_nusd=bindparam("cost"),
            estimated=literal_column("true"),
        )
    )
