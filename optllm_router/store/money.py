"""Money in SQL: amounts are reserved and settled in the transactions that write the log.

So money and log cannot part. Whoever writes several accounts does it in the order of their keys,
after reservations, attempts and decisions, in this order: on PostgreSQL nobody waits in a circle,
and the accounts, which every call writes, are locked for the shortest time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from optllm_router.core.budgets import Standing, Window, most_binding, session_key, window_at
from optllm_router.records import Attempt, BudgetLine, Decision
from optllm_router.store import writes
from optllm_router.store.database import Database
from optllm_router.store.money_rows import (
    BookingRow,
    EventRow,
    HoldRow,
    IdRow,
    LeaseRow,
    MoneyStatements,
    RangeRow,
    ReservationRow,
    SweptRow,
)
from optllm_router.store.rows import Prepared, ServedRow, Statements
from optllm_router.store.shares import ClaimedBudget, Reply, Reserve, SweepReport
from optllm_router.store.types import unescape_text
from optllm_router.store.writes import Cursor

_ANSWERED = {"ok", "abandoned"}
_NONE = (None, Window("", "", ""))


class TakenError(Exception):
    """Another process reserved first what had seemed to be left: look again."""


class _Held(NamedTuple):
    """An account that a reservation binds, and the spending that is worth a warning there.

    `first` and `last` are the keys of a rolling window's ends, empty for any other.
    """

    budget: int
    window: str
    warn_nusd: int | None
    first: str = ""
    last: str = ""

    def values(self) -> list[object]:
        """Return what the reservation's row holds of it, as short as can be."""
        ends = [self.first, self.last] if self.first else []
        return [self.budget, self.window, self.warn_nusd, *ends]


class _Ended(NamedTuple):
    """A reservation that has ended, and what it came to."""

    amount_nusd: int
    cost_nusd: int
    holds: tuple[_Held, ...]
    is_call: bool = True


class _Place(NamedTuple):
    """A budget in its window: how it stands, and what its own account holds of that."""

    budget: ClaimedBudget
    standing: Standing
    own_nusd: int

    def hold(self, amount_nusd: int) -> HoldRow:
        """Return the hold of an amount; what the window's other accounts hold is taken off."""
        one = self.standing
        others = one.spent_nusd + one.reserved_nusd - self.own_nusd
        return HoldRow(self.budget.id, one.window.key, amount_nusd, one.limit_nusd - others)

    def held(self) -> _Held:
        """Return what the reservation remembers."""
        window, warn_at = self.standing.window, self.budget.line.warn_at
        warn_nusd = None if warn_at is None else int(warn_at * self.standing.limit_nusd)
        is_range = window.first_key != window.last_key
        ends = (window.first_key, window.last_key) if is_range else ()
        return _Held(self.budget.id, window.key, warn_nusd, *ends)


class Books:
    """The accounts of one database. Every method works inside the caller's transaction."""

    def __init__(self, database: Database, statements: Statements) -> None:
        self._database = database
        self._log = statements
        self._money = MoneyStatements(database.engine.dialect)
        self._windows: dict[int, tuple[BudgetLine, Window]] = {}

    def renew(self, cursor: Cursor, worker: str, lease_s: float) -> bool:
        """Renew a worker's lease; return whether it is there."""
        now = self._database.now(cursor)
        self._run(cursor, self._money.renew, LeaseRow(worker, now + timedelta(seconds=lease_s)))
        return bool(cursor.rowcount)

    def retire(self, cursor: Cursor, worker: str) -> None:
        """Remove a worker that holds nothing."""
        self._run(cursor, self._money.retire, IdRow(worker))

    def reserve(
        self, cursor: Cursor, decision: Decision, attempt: Attempt, wanted: Reserve
    ) -> Reply:
        """Write a decision and its open attempt, and reserve for it, where it fits everywhere.

        Raises: TakenError, to be tried again in another transaction.
        """
        now = self._present(cursor, wanted)
        if now is None:
            return Reply("expired")
        session = session_key(decision.session_id, decision.id)
        budgets = sorted(wanted.budgets, key=lambda budget: budget.id)
        windows = [self._window(budget, now, session) for budget in budgets]
        places = self._places(cursor, wanted.worker, now, list(zip(budgets, windows, strict=True)))
        tight = most_binding((place.standing for place in places), wanted.amount_nusd)
        if tight is not None:
            return Reply(tight.verdict(wanted.amount_nusd), tight)
        with self._together(cursor):
            writes.insert_entries(cursor, self._log, [(decision, [attempt])])
            self._run(cursor, self._money.reservation, _reservation(attempt, wanted, now, places))
            held = self._hold(cursor, wanted, now, places)
        if held.rowcount != len(places):
            raise TakenError
        return Reply("reserved")

    def settle(self, cursor: Cursor, attempt: Attempt, served: ServedRow) -> list[str]:
        """Complete an attempt and book its reservation, if it has one; return what to warn of.

        Raises: UnknownDecisionError when there is neither an attempt nor a reservation.
        """
        self._run(cursor, self._money.end, IdRow(attempt.id))
        row = cursor.fetchone()
        if row is None:
            writes.settle(cursor, self._log, attempt, served)
            return []
        writes.complete_reserved(cursor, self._log, attempt, served)
        amount, holds = row
        cost = amount if attempt.cost_nusd is None else attempt.cost_nusd
        is_call = cost > 0 or attempt.status in _ANSWERED
        ended = _Ended(amount, cost, _holds(holds), is_call)
        said = self._book(cursor, [ended])
        if cost > amount:
            said.append(self._overshoot(cursor, attempt, ended))
        return said

    def sweep(self, cursor: Cursor, after: str) -> tuple[str, SweepReport, list[str]] | None:
        """Settle what the next dead worker after `after` held, and remove it; None for none.

        Returns its id, what was settled, and what to warn of.
        """
        now = self._database.now(cursor)
        self._run(cursor, self._money.dead, LeaseRow(after, now))
        row = cursor.fetchone()
        if row is None:
            return None
        worker: str = row[0]
        self._run(cursor, self._money.end_all, IdRow(worker))
        orphans = sorted(cursor.fetchall())
        for decision, attempt, _, forecast, _ in orphans:
            self._run(cursor, self._money.swept, SweptRow(decision, attempt, forecast))
        ended = [_Ended(amount, cost, _holds(held)) for _, _, amount, cost, held in orphans]
        said = self._book(cursor, ended)
        self._run(cursor, self._money.bury, IdRow(worker))
        total = sum(one.cost_nusd for one in ended)
        if orphans:
            said.append(self._orphaned(cursor, worker, len(orphans), total))
        return worker, SweepReport(1, len(orphans), total), said

    def _present(self, cursor: Cursor, wanted: Reserve) -> datetime | None:
        """Return the time, with the worker kept alive; None when it is no more there."""
        self._run(cursor, self._money.present, IdRow(wanted.worker))
        row = cursor.fetchone()
        if row is None:
            return None
        alive_until, time = row
        now = self._database.now(cursor) if self._database.clock or not time else time
        now = now.astimezone(UTC)
        lease = timedelta(seconds=wanted.lease_s)
        if alive_until < self._money.moment(now + lease / 2):
            self._run(cursor, self._money.renew, LeaseRow(wanted.worker, now + lease))
        return now

    def _window(self, budget: ClaimedBudget, now: datetime, session: str) -> Window:
        """Return a budget's window, the one of the last call where that is not over yet."""
        line, last = self._windows.get(budget.id, _NONE)
        if line is budget.line and last.holds(now):
            return last
        found = window_at(budget.line, now, session)
        self._windows[budget.id] = budget.line, found
        return found

    def _together(self, cursor: Cursor) -> AbstractContextManager[object]:
        """Send the statements of a block to a server in one go."""
        if self._database.is_sqlite:
            return nullcontext()
        pipeline: AbstractContextManager[object] = cursor.connection.pipeline()
        return pipeline

    def _places(
        self,
        cursor: Cursor,
        worker: str,
        now: datetime,
        windows: Sequence[tuple[ClaimedBudget, Window]],
    ) -> list[_Place]:
        if not windows:
            return []
        values: dict[str, object] = {"now": self._money.moment(now), "worker": worker}
        for place, (budget, window) in enumerate(windows):
            values[f"budget_{place}"] = budget.id
            values[f"key_{place}"] = window.key
            values[f"first_{place}"] = window.first_key
            values[f"last_{place}"] = window.last_key
        query = self._money.standings(len(windows))
        cursor.execute(query.sql, query.bind(values))
        found = []
        for place, limit, spent, reserved, own in cursor.fetchall():
            budget, window = windows[place]
            most = budget.line.limit_nusd if limit is None else limit  # no more claimed by anyone
            standing = Standing(budget.line.name, window, most, spent, reserved)
            found.append(_Place(budget, standing, own))
        return sorted(found, key=lambda place: place.budget.id)

    def _hold(
        self, cursor: Cursor, wanted: Reserve, now: datetime, places: Sequence[_Place]
    ) -> Cursor:
        """Reserve in all accounts; the cursor returned has the number of those where it fits."""
        rolling = [place.budget for place in places if place.budget.line.rolling]
        if rolling and not self._database.is_sqlite:
            for budget in rolling:
                self._run(cursor, self._money.lock_budget, IdRow(budget.id))
            windows = [(place.budget, place.standing.window) for place in places]
            looking = cursor.connection.cursor()  # what was sent before it may be answered only now
            places = self._places(looking, wanted.worker, now, windows)
            if most_binding((place.standing for place in places), wanted.amount_nusd) is not None:
                raise TakenError
        hold = self._money.hold
        held = cursor.connection.cursor()  # of its own, as others' rows would be counted too
        held.executemany(hold.sql, [hold.bind(place.hold(wanted.amount_nusd)) for place in places])
        return held

    def _book(self, cursor: Cursor, ended: Iterable[_Ended]) -> list[str]:
        """Take ended reservations out of their accounts, and what they cost in."""
        said = []
        for held, row in _bookings(ended):
            self._run(cursor, self._money.book, row)
            spent, warned = cursor.fetchone()
            if held.warn_nusd is None or warned:
                continue
            if held.first:
                span = RangeRow(held.budget, held.first, held.last)
                self._run(cursor, self._money.sums, span)
                spent, warned = cursor.fetchone()
            if spent >= held.warn_nusd and not warned:
                said.append(self._crossed(cursor, held, row, spent))
        return said

    def _crossed(self, cursor: Cursor, held: _Held, row: BookingRow, spent: int) -> str:
        self._run(cursor, self._money.warned, row)
        name = self._name(cursor, held)
        message = (
            f"the budget {name!r} has spent {spent} nano-USD, its warning is at {held.warn_nusd}"
        )
        facts = {"budget": name, "window": held.window, "spent_nusd": spent}
        return self._event(
            cursor, "budget_warning", message, {**facts, "warn_nusd": held.warn_nusd}
        )

    def _overshoot(self, cursor: Cursor, attempt: Attempt, ended: _Ended) -> str:
        names = [self._name(cursor, held) for held in ended.holds]
        over = ended.cost_nusd - ended.amount_nusd
        message = (
            f"a call of {attempt.candidate!r} cost {over} nano-USD more than was reserved for it; "
            f"it is booked in full on the budgets {', '.join(map(repr, names))}"
        )
        facts = {"attempt_id": attempt.id, "budgets": names, "overshoot_nusd": over}
        return self._event(cursor, "overshoot", message, facts)

    def _orphaned(self, cursor: Cursor, worker: str, n: int, total: int) -> str:
        message = (
            f"a process died with {n} calls under way: they are taken to have been sent and are "
            f"settled at their forecast, {total} nano-USD"
        )
        facts = {"worker": worker, "n_reservations": n, "settled_nusd": total}
        return self._event(cursor, "lease_expired", message, facts)

    def _event(self, cursor: Cursor, kind: str, message: str, facts: Mapping[str, object]) -> str:
        at = self._database.now(cursor)
        self._run(cursor, self._money.event, EventRow(at, kind, message, facts))
        return message

    def _name(self, cursor: Cursor, held: _Held) -> str:
        self._run(cursor, self._money.name, IdRow(held.budget))
        return unescape_text(cursor.fetchone()[0])

    def _run(self, cursor: Cursor, statement: Prepared, row: object) -> None:
        cursor.execute(statement.sql, statement.bind(row))


def _reservation(
    attempt: Attempt, wanted: Reserve, now: datetime, places: Sequence[_Place]
) -> ReservationRow:
    return ReservationRow(
        attempt_id=attempt.id,
        decision_id=attempt.decision_id,
        worker_id=wanted.worker,
        amount_nusd=wanted.amount_nusd,
        forecast_nusd=wanted.forecast_nusd,
        created_at=now,
        holds=[place.held().values() for place in places],
    )


def _holds(values: str) -> tuple[_Held, ...]:
    return tuple(_Held(*held) for held in json.loads(values))


def _bookings(ended: Iterable[_Ended]) -> list[tuple[_Held, BookingRow]]:
    """Add up what each account gives back and takes, in the order of the accounts' keys."""
    totals: dict[tuple[int, str], tuple[_Held, list[int]]] = {}
    for one in ended:
        over = max(one.cost_nusd - one.amount_nusd, 0)
        for held in one.holds:
            _, sums = totals.setdefault((held.budget, held.window), (held, [0, 0, 0, 0]))
            for place, value in enumerate((one.amount_nusd, one.cost_nusd, over, one.is_call)):
                sums[place] += value
    return [
        (held, BookingRow(budget, window, *sums))
        for (budget, window), (held, sums) in sorted(totals.items(), key=lambda item: item[0])
    ]
