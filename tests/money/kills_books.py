"""What must be true of a log whose processes were killed, held against the upstream's bill."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crowd_upstream import Bill
from kills_child import INPUT_NUSD, OUTPUT_NUSD
from sqlalchemy import func, select

from optllm_router.core.budgets import session_key
from optllm_router.records import Attempt
from optllm_router.store.sql import SqlStore
from optllm_router.store.tables import accounts, attempts, budgets, reservations


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One window of one budget, in nano-USD."""

    budget: str
    window: str
    limit: int
    spent: int
    reserved: int
    overshoot: int


def accounts_of(store: SqlStore) -> list[Account]:
    """Return all windows of all budgets."""
    row = accounts.c
    query = select(
        budgets.c.name,
        row.window_key,
        budgets.c.limit_nusd,
        row.spent_nusd,
        row.reserved_nusd,
        row.overshoot_nusd,
    ).join_from(accounts, budgets, budgets.c.id == row.budget_id)
    with store._database.reading() as connection:
        names = ("budget", "window", "limit", "spent", "reserved", "overshoot")
        found = connection.execute(query).all()
    return [Account(**dict(zip(names, one, strict=True))) for one in found]


def overruns(store: SqlStore) -> Iterator[str]:
    """Yield the windows in which more is spent and reserved than there was, at this moment."""
    for one in accounts_of(store):
        if one.spent + one.reserved > one.limit + one.overshoot:
            yield f"overrun: {one}"


def reservation_ages_s(store: SqlStore) -> list[float]:
    """Return how old each live reservation is, in seconds."""
    with store._database.reading() as connection:
        found = connection.execute(select(reservations.c.created_at)).scalars().all()
    return [(datetime.now(UTC) - at).total_seconds() for at in found]


class Log:
    """Everything that was logged, by what was asked."""

    def __init__(self, store: SqlStore) -> None:
        self.entries = store.decisions(limit=10**9)
        self.of: dict[str, list[Attempt]] = defaultdict(list)
        self.sessions: Counter[str] = Counter()
        for one in self.entries:
            decision = one.decision
            self.of[str(decision.prompt)] += one.attempts
            key = session_key(decision.session_id, decision.id)
            self.sessions[key] += sum(a.cost_nusd or 0 for a in one.attempts)
        self.by_id = {one.decision.id: one for one in self.entries}

    @property
    def attempts(self) -> list[Attempt]:
        """All attempts."""
        return [attempt for tried in self.of.values() for attempt in tried]


def askings(log: Log, bill: Bill) -> Iterator[str]:
    """Yield what the upstream was asked and the ledger does not know, or counts otherwise."""
    asked: Counter[str] = Counter()
    for (source, text), n in bill.asked.items():
        asked[text] += n
        if n != 1:
            yield f"{text!r} was asked {n} times by one life of a process, {source}"
    for text, n in asked.items():
        tried = log.of.get(text, [])
        if len(tried) < n:
            yield f"{text!r} was asked {n} times, the ledger has {len(tried)} attempts"
        if sum(attempt.status == "ok" for attempt in tried) > 1:
            yield f"{text!r} was answered twice: {tried}"
    for attempt in log.attempts:
        is_lost = attempt.status == "abandoned" and attempt.estimated and attempt.cost_nusd
        if attempt.status != "ok" and not is_lost:
            yield f"an attempt is neither answered nor settled at its forecast: {attempt}"


def asked_again(bill: Bill) -> Mapping[str, int]:
    """Return per life of a process how many items that it had asked were asked by a later one."""
    lives: dict[str, list[int]] = defaultdict(list)
    for source, text in bill.asked:
        lives[text].append(int(source.partition("-")[2]))
    again: Counter[str] = Counter()
    for source, text in bill.asked:
        again[source] += int(source.partition("-")[2]) < max(lives[text])
    return again


def acknowledged(log: Log, notes: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield what a process was promised before it was killed, and the log does not have."""
    for kind, *words in notes:
        if kind == "batch":
            continue
        found = log.by_id.get(words[0])
        ended = {a.id: (a.status, str(a.cost_nusd)) for a in found.attempts} if found else {}
        if kind == "settled" and ended.get(words[1]) != (words[2], words[3]):
            yield f"{words} was settled, the log has {ended}"
        if kind == "answer" and "ok" not in {status for status, _ in ended.values()}:
            yield f"{words} reached its caller, the log has {ended}"


def money(store: SqlStore, log: Log) -> Iterator[str]:
    """Yield the budgets whose accounts are not the sum of their calls."""
    yield from overruns(store)
    found = accounts_of(store)
    total = sum(attempt.cost_nusd or 0 for attempt in log.attempts)
    spent: dict[Any, int] = {one.window: one.spent for one in found if one.budget == "session"}
    (all_,) = (one for one in found if one.budget == "all")
    if all_.spent != total:
        yield f"the budget in total has {all_.spent}, the attempts {total}"
    for key, cost in log.sessions.items():
        if spent.get(key) != cost:
            yield f"the session {key!r} has {spent.get(key)}, its attempts {cost}"
    for one in found:
        if one.reserved or one.overshoot:
            yield f"something is reserved, or overshot: {one}"


def cost_nusd(prompt_tokens: int, completion_tokens: int) -> int:
    """What an answered call costs, by the written prices."""
    return prompt_tokens * INPUT_NUSD + completion_tokens * OUTPUT_NUSD


def n_open(store: SqlStore) -> int:
    """Return how many attempts are still open."""
    query = select(func.count()).where(attempts.c.status == "open")
    with store._database.reading() as connection:
        return int(connection.execute(query).scalar_one())
