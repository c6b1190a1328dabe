"""Which budgets there are: claimed by workers, overridden by people, and where each stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, text, update

from optllm_router.core.budgets import Window, elapsed_share, session_key, window_at
from optllm_router.errors import ConfigError
from optllm_router.records import BudgetLine
from optllm_router.store import rows
from optllm_router.store.shares import BudgetStatus, ClaimedBudget, Override
from optllm_router.store.tables import (
    accounts,
    budget_claims,
    budget_overrides,
    budgets,
    events,
    workers,
)

_SHAPE = ("scope", "value", "per", "rolling", "timezone")  # what it counts, in which windows
_STORED = (*_SHAPE, "warn_at", "at_cap", "limit_nusd")
_COUNTED = ("spent_nusd", "reserved_nusd", "overshoot_nusd", "n_calls")


def register(
    connection: Connection, worker: str, lines: Sequence[BudgetLine], now: datetime, lease_s: float
) -> tuple[tuple[ClaimedBudget, ...], list[str]]:
    """Claim budgets for a worker; return them with their ids, and what to warn of.

    Raises: ConfigError where a live worker counts a budget of the same name otherwise.
    """
    if connection.dialect.name != "sqlite":  # where writers do not wait for each other anyway
        connection.execute(text("LOCK TABLE budgets IN SHARE ROW EXCLUSIVE MODE"))
    alive = rows.insert(connection.dialect, workers)
    alive = alive.on_conflict_do_update(
        index_elements=[workers.c.id], set_={"alive_until": alive.excluded.alive_until}
    )
    alive_until = now + timedelta(seconds=lease_s)
    connection.execute(alive, {"id": worker, "alive_until": alive_until})
    connection.execute(delete(budget_claims).where(budget_claims.c.worker_id == worker))
    claimed, said = [], []
    for line in sorted(lines, key=lambda line: line.name):
        others = _live_claims(connection, line.name, now)
        budget_id = _written(connection, line, others)
        claim = {"budget_id": budget_id, "worker_id": worker, "limit_nusd": line.limit_nusd}
        connection.execute(insert(budget_claims), claim)
        claimed.append(ClaimedBudget(budget_id, line))
        if others and set(others) != {line.limit_nusd}:
            said.append(_differing(connection, line, others, now))
    return tuple(claimed), said


def statuses(connection: Connection, now: datetime, session_id: str | None) -> list[BudgetStatus]:
    """Return where all budgets stand, by name."""
    found = connection.execute(select(budgets).order_by(budgets.c.name)).mappings().all()
    return [_status(connection, row, now, session_id) for row in found]


def set_override(connection: Connection, override: Override, now: datetime) -> None:
    """Write an override and its event. Raises: ConfigError."""
    query = select(budgets.c.name, budgets.c.id)
    names = {row.name: row.id for row in connection.execute(query)}
    if override.budget not in names:
        known = ", ".join(repr(name) for name in sorted(names)) or "none yet"
        raise ConfigError(
            f"there is no budget {override.budget!r} in the log: those it has are {known}. A "
            "budget is there once a router with it in its settings has started"
        )
    if override.until <= now:
        raise ConfigError(
            f"`until` = {override.until.isoformat()} has passed (the database's time is "
            f"{now.isoformat()}): an override holds until a later moment"
        )
    values: dict[str, Any] = {
        "limit_nusd": override.limit_nusd,
        "until": override.until,
        "who": override.who,
        "why": override.why,
    }
    row = {**values, "budget_id": names[override.budget], "created_at": now}
    connection.execute(insert(budget_overrides), row)
    message = (
        f"{override.who} set the budget {override.budget!r} to {override.limit_nusd} nano-USD "
        f"until {override.until.isoformat()}: {override.why}"
    )
    facts = {**values, "budget": override.budget, "until": override.until.isoformat()}
    _log(connection, now, "budget_override", message, facts)


def overrides(connection: Connection, limit: int) -> list[Override]:
    """Return the newest overrides first."""
    return [Override(**row) for row in connection.execute(_overrides().limit(limit)).mappings()]


def _written(connection: Connection, line: BudgetLine, others: Sequence[int]) -> int:
    """Write a budget as this process has it; return its id."""
    values = {name: getattr(line, name) for name in _STORED}
    query = select(budgets).where(budgets.c.name == line.name)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        new = insert(budgets).returning(budgets.c.id)
        return int(connection.execute(new, {**values, "name": line.name}).scalar_one())
    if others and any(row[name] != values[name] for name in _SHAPE):
        raise ConfigError(
            f"the budget {line.name!r} is {_shape(line)} here, but "
            f"{_shape(_line(row, line.limit_nusd))} in another process that uses the same store: "
            "give this one another name, or end that process (one that was killed counts as "
            "running until its lease runs out, within a minute)"
        )
    connection.execute(update(budgets).where(budgets.c.id == row["id"]).values(values))
    return int(row["id"])


def _live_claims(connection: Connection, name: str, now: datetime) -> list[int]:
    """Return the distinct limits that live workers claim for a budget, lowest first."""
    query = (
        select(budget_claims.c.limit_nusd)
        .distinct()
        .join_from(budget_claims, workers)
        .join(budgets, budgets.c.id == budget_claims.c.budget_id)
        .where(budgets.c.name == name, workers.c.alive_until > now)
        .order_by(budget_claims.c.limit_nusd)
    )
    return list(connection.execute(query).scalars())


def _differing(
    connection: Connection, line: BudgetLine, others: Sequence[int], now: datetime
) -> str:
    lowest = min(line.limit_nusd, *others)
    message = (
        f"processes that share the store have different limits for the budget {line.name!r}: "
        f"{line.limit_nusd} nano-USD here, {', '.join(map(str, others))} elsewhere; the lowest, "
        f"{lowest}, holds"
    )
    facts = {"budget": line.name, "here_nusd": line.limit_nusd, "elsewhere_nusd": list(others)}
    _log(connection, now, "budget_limits_differ", message, facts)
    return message


def _status(
    connection: Connection, row: RowMapping, now: datetime, session_id: str | None
) -> BudgetStatus:
    claims = _live_claims(connection, row["name"], now)
    in_date = _overrides().where(
        budget_overrides.c.budget_id == row["id"], budget_overrides.c.until > now
    )
    found = connection.execute(in_date.limit(1)).mappings().one_or_none()
    override = None if found is None else Override(**found)
    claimed = claims[0] if claims else row["limit_nusd"]
    line = _line(row, claimed if override is None else override.limit_nusd)
    window = _window(connection, row["id"], line, now, session_id)
    sums = [func.coalesce(func.sum(accounts.c[name]), 0).label(name) for name in _COUNTED]
    own = accounts.c.budget_id == row["id"]
    key = accounts.c.window_key
    span = (key >= window.first_key, key <= window.last_key)
    counted = connection.execute(select(*sums).where(own, *span)).mappings().one()
    return BudgetStatus(
        line=line,
        window=window,
        elapsed=elapsed_share(window, now),
        claims_nusd=tuple(claims),
        override=override,
        **{name: int(counted[name]) for name in _COUNTED},
    )


def _window(
    connection: Connection, budget_id: int, line: BudgetLine, now: datetime, session_id: str | None
) -> Window:
    """Return a budget's window now; per session, the fullest one where none is given."""
    session = session_key(session_id, "")
    if line.per == "session" and session_id is None:
        committed = accounts.c.spent_nusd + accounts.c.reserved_nusd
        fullest = select(accounts.c.window_key).where(accounts.c.budget_id == budget_id)
        fullest = fullest.order_by(committed.desc(), accounts.c.window_key).limit(1)
        session = connection.execute(fullest).scalar_one_or_none() or session
    return window_at(line, now, session)


def _overrides() -> Select[Any]:
    row = budget_overrides.c
    columns = (row.limit_nusd, row.until, row.who, row.why, row.created_at)
    query = select(budgets.c.name.label("budget"), *columns)
    return query.join_from(budget_overrides, budgets).order_by(row.id.desc())


def _line(row: RowMapping, limit_nusd: int) -> BudgetLine:
    line = BudgetLine(**{name: row[name] for name in ("name", *_STORED)})
    return replace(line, limit_nusd=limit_nusd)


def _shape(line: BudgetLine) -> str:
    matched = "everything" if line.scope == "all" else f"{line.scope} {line.value!r}"
    window = f"rolling {line.per}" if line.rolling else line.per
    return f"per {window} in {line.timezone} for {matched}"


def _log(
    connection: Connection, at: datetime, kind: str, message: str, facts: dict[str, Any]
) -> None:
    row = {"at": at, "kind": kind, "message": message, "facts": facts}
    connection.execute(insert(events), row)
