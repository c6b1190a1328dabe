"""The ledger against a plain model of it, on both databases, whatever is done in whatever order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from optllm_router.records import BudgetLine
from optllm_router.store import tables
from optllm_router.store.shares import ClaimedBudget, Override
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import NOON, SteppedClock
from optllm_router.testing.store_suite.spending import a_call, money, reserve, settle

LEASE = timedelta(seconds=60)
WORKERS = ("w1", "w2")
SHAPES = {
    "all": {"per": "total"},
    "day": {"per": "day"},
    "hour": {"per": "hour", "rolling": True},
}
MONEY = (
    tables.reservations,
    tables.accounts,
    tables.budget_overrides,
    tables.budget_claims,
    tables.budgets,
    tables.workers,
    tables.decisions,
)


@dataclass
class Entry:
    """One reservation of the model, on some budgets, from its reserve on."""

    call: tuple
    worker: str
    at: datetime
    names: tuple[str, ...]
    amount: int
    spent: int = 0
    over: int = 0
    is_live: bool = True
    is_call: bool = False


@dataclass
class Model:
    """What should be so, by other arithmetic than the store's: one list, summed up each time."""

    alive_until: dict[str, datetime] = field(default_factory=dict)
    claims: dict[tuple[str, str], int] = field(default_factory=dict)
    overrides: list[tuple[str, int, datetime]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    last_claimed: dict[str, int] = field(default_factory=dict)
    highest: dict[str, int] = field(default_factory=dict)

    def limit(self, name: str, now: datetime, worker: str | None = None) -> int:
        for overridden, limit, until in reversed(self.overrides):
            if overridden == name and until > now:
                return limit
        live = [
            limit
            for (who, claimed), limit in self.claims.items()
            if claimed == name and (self.alive_until[who] > now or who == worker)
        ]
        return min(live, default=self.last_claimed[name])

    def counted(self, name: str, now: datetime) -> list[Entry]:
        return [e for e in self.entries if name in e.names and is_counted(name, e.at, now)]

    def money(self, name: str, now: datetime) -> tuple[int, int, int, int]:
        counted = self.counted(name, now)
        return (
            sum(e.spent for e in counted),
            sum(e.amount for e in counted if e.is_live),
            sum(e.over for e in counted),
            sum(e.is_call for e in counted),
        )

    def verdict(self, worker: str, names: tuple[str, ...], amount: int, now: datetime) -> str:
        verdicts = {"reserved"}
        for name in names:
            spent, reserved, _, _ = self.money(name, now)
            limit = self.limit(name, now, worker)
            if amount > limit - spent:
                verdicts.add("refused")
            elif amount > limit - spent - reserved:
                verdicts.add("wait")
        return min(verdicts, key=("refused", "wait", "reserved").index)


def is_counted(name: str, at: datetime, now: datetime) -> bool:
    """Whether money of `at` counts now: any, of the same day, of 24 buckets and the current one."""
    if name == "hour":
        return at.timestamp() // 150 >= now.timestamp() // 150 - 24
    return name == "all" or at.date() == now.date()


class Ledger(RuleBasedStateMachine):
    def __init__(self, store, clock: SteppedClock) -> None:
        super().__init__()
        self.store, self.clock = store, clock
        clock.now = NOON
        with store._database.writing() as connection:
            for table in MONEY:
                connection.execute(delete(table))
        self.model = Model()
        self.ids: dict[str, ClaimedBudget] = {}
        self.n_calls = 0
        for worker in WORKERS:
            self.register(worker, [40, 60, 50])

    @rule(
        worker=st.sampled_from(WORKERS),
        limits=st.lists(st.integers(1, 100), min_size=3, max_size=3),
    )
    def register(self, worker: str, limits: list[int]) -> None:
        lines = [
            BudgetLine(name=name, limit_nusd=limit, warn_at=None, **SHAPES[name])
            for name, limit in zip(SHAPES, limits, strict=True)
        ]
        claimed = self.store.register(worker, lines, lease_s=60.0)
        self.ids = {one.line.name: one for one in claimed}
        self.model.alive_until[worker] = self.clock.now + LEASE
        for name, limit in zip(SHAPES, limits, strict=True):
            self.model.claims[worker, name] = self.model.last_claimed[name] = limit

    @rule(
        worker=st.sampled_from(WORKERS),
        names=st.sets(st.sampled_from(sorted(SHAPES)), min_size=1),
        amount=st.integers(0, 45),
    )
    def reserve(self, worker: str, names: set[str], amount: int) -> None:
        now, bound = self.clock.now, tuple(sorted(names))
        call = a_call(self.n_calls)
        self.n_calls += 1

        reply = reserve(self.store, tuple(self.ids[n] for n in bound), call, amount, worker=worker)

        if worker not in self.model.alive_until:
            assert "expired" == reply.verdict
            return
        if self.model.alive_until[worker] < now + LEASE / 2:
            self.model.alive_until[worker] = now + LEASE
        assert self.model.verdict(worker, bound, amount, now) == reply.verdict
        if reply.verdict == "reserved":
            self.model.entries.append(Entry(call, worker, now, bound, amount))
            for name in bound:
                limit = self.model.limit(name, now, worker)
                spent, reserved, _, _ = self.model.money(name, now)
                assert spent + reserved <= limit
                self.model.highest[name] = max(limit, self.model.highest.get(name, 0))

    @precondition(lambda self: any(e.is_live for e in self.model.entries))
    @rule(data=st.data(), cost=st.integers(0, 60))
    def settle(self, data, cost: int) -> None:
        entry = data.draw(st.sampled_from([e for e in self.model.entries if e.is_live]))
        settle(self.store, entry.call, cost)
        self.end(entry, cost)

    @precondition(lambda self: any(not e.is_live for e in self.model.entries))
    @rule(data=st.data(), cost=st.integers(0, 60))
    def settle_again(self, data, cost: int) -> None:
        entry = data.draw(st.sampled_from([e for e in self.model.entries if not e.is_live]))
        settle(self.store, entry.call, cost)

    @rule(worker=st.sampled_from(WORKERS))
    def heartbeat(self, worker: str) -> None:
        is_there = worker in self.model.alive_until
        assert is_there == self.store.heartbeat(worker, lease_s=60.0)
        if is_there:
            self.model.alive_until[worker] = self.clock.now + LEASE

    @rule()
    def sweep(self) -> None:
        dead = {w for w, until in self.model.alive_until.items() if until <= self.clock.now}
        left = [e for e in self.model.entries if e.is_live and e.worker in dead]

        report = self.store.sweep()

        total = sum(e.amount // 2 for e in left)
        assert (len(dead), len(left), total) == (
            report.n_workers,
            report.n_reservations,
            report.settled_nusd,
        )
        for entry in left:
            self.end(entry, entry.amount // 2)
        for worker in dead:
            del self.model.alive_until[worker]
            for name in SHAPES:
                self.model.claims.pop((worker, name), None)

    @rule(
        name=st.sampled_from(sorted(SHAPES)),
        limit=st.integers(0, 150),
        lasts=st.sampled_from([1, 60, 4_000]),
    )
    def override(self, name: str, limit: int, lasts: int) -> None:
        until = self.clock.now + timedelta(seconds=lasts)
        self.store.set_override(
            Override(budget=name, limit_nusd=limit, until=until, who="a", why="b", created_at=NOON)
        )
        self.model.overrides.append((name, limit, until))

    @rule(seconds=st.sampled_from([1, 29, 31, 61, 149, 150, 3_599, 86_400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += timedelta(seconds=seconds)

    @invariant()
    def the_books_balance(self) -> None:
        now = self.clock.now
        for status in self.store.budgets():
            name = status.line.name
            assert self.model.money(name, now) == money(status)
            assert self.model.limit(name, now) == status.line.limit_nusd
            spent, reserved, over, _ = money(status)
            assert spent + reserved <= self.model.highest.get(name, 0) + over
        assert self.reserved_by_rows() == self.reserved_by_accounts()

    def end(self, entry: Entry, cost: int) -> None:
        entry.is_live, entry.spent, entry.is_call = False, cost, True
        entry.over = max(cost - entry.amount, 0)

    def reserved_by_accounts(self) -> dict[tuple[int, str], int]:
        row = tables.accounts.c
        query = select(row.budget_id, row.window_key, row.reserved_nusd)
        with self.store._database.reading() as connection:
            return {(b, w): n for b, w, n in connection.execute(query) if n}

    def reserved_by_rows(self) -> dict[tuple[int, str], int]:
        row = tables.reservations.c
        sums: dict[tuple[int, str], int] = {}
        with self.store._database.reading() as connection:
            for amount, holds in connection.execute(select(row.amount_nusd, row.holds)):
                for budget, window, *_ in json.loads(json.dumps(holds)):
                    sums[budget, window] = sums.get((budget, window), 0) + amount
        return {key: amount for key, amount in sums.items() if amount}


@pytest.mark.timeout(600)
def test_the_ledger_is_what_a_plain_model_of_it_is(store_url):
    clock = SteppedClock()
    store = open_store(store_url, clock=clock)

    run_state_machine_as_test(
        lambda: Ledger(store, clock),
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

    store.close()
