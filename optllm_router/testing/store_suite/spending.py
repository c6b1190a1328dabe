"""Budgets that processes share: reserved, settled, swept, overridden, window by window."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optllm_router.errors import BatchBusyError, ConfigError, UnknownDecisionError
from optllm_router.records import Attempt, BudgetLine, Decision
from optllm_router.store.base import BatchItem, Store
from optllm_router.store.shares import (
    BudgetStatus,
    ClaimedBudget,
    Override,
    Reply,
    Reserve,
)
from optllm_router.testing.store_suite.entries import NOON, a_decision, an_attempt

LEASE_S = 60.0
HOUR = timedelta(hours=1)


class SteppedClock:
    """A clock that stands until `now` is set: what time it is for windows and leases."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now


def a_line(name: str = "day", limit_nusd: int = 100, **changes: Any) -> BudgetLine:
    """Return a budget per day that binds everything."""
    return BudgetLine(**{"name": name, "limit_nusd": limit_nusd, "per": "day", **changes})


def a_call(number: int = 1, **changes: Any) -> tuple[Decision, Attempt]:
    """Return a decision and its open attempt."""
    decision = a_decision(number, served=None, **changes)
    attempt = an_attempt(
        decision,
        status="open",
        prompt_tokens=None,
        completion_tokens=None,
        cost_nusd=0,
        response_id=None,
    )
    return decision, attempt


def reserve(
    store: Store,
    claimed: tuple[ClaimedBudget, ...],
    call: tuple[Decision, Attempt],
    amount_nusd: int,
    *,
    worker: str = "w1",
) -> Reply:
    """Reserve for a call; its forecast is half of the amount."""
    wanted = Reserve(
        worker=worker,
        budgets=claimed,
        amount_nusd=amount_nusd,
        forecast_nusd=amount_nusd // 2,
        lease_s=LEASE_S,
    )
    return store.reserve(*call, wanted)


def settle(store: Store, call: tuple[Decision, Attempt], cost_nusd: int | None) -> None:
    """Settle a call that was answered."""
    store.settle(replace(call[1], status="ok", cost_nusd=cost_nusd), served="small")


def money(status: BudgetStatus) -> tuple[int, int, int, int]:
    """Return spent, reserved, overshoot and calls."""
    return status.spent_nusd, status.reserved_nusd, status.overshoot_nusd, status.n_calls


class Spending:
    """The contract of money."""

    def test_a_reserve_writes_the_call_down_and_a_settle_completes_it(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()

        reply = reserve(store, claimed, call, 60)

        assert Reply("reserved") == reply
        assert (call[1],) == store.decision(call[0].id).attempts
        assert (0, 60, 0, 0) == money(store.budgets()[0])

        settle(store, call, 45)

        assert [("ok", 45)] == [
            (a.status, a.cost_nusd) for a in store.decision(call[0].id).attempts
        ]
        assert "small" == store.decision(call[0].id).decision.served
        assert (45, 0, 0, 1) == money(store.budgets()[0])

    def test_settling_twice_books_once(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 60)

        settle(store, call, 45)
        settle(store, call, 50)

        assert (45, 0, 0, 1) == money(store.budgets()[0])

    def test_a_reserve_claims_a_batchs_item_or_nothing(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        store.hold_batch("night", owner="a", request_keys=bytes(32))
        calls = [a_call(n, batch_id="night", created_at=datetime.now(UTC)) for n in (1, 2, 3)]
        mine, stolen, dear = (
            BatchItem(batch_id="night", item=n, decision_id=call[0].id, status="open", owner=owner)
            for n, (call, owner) in enumerate(zip(calls, "aba", strict=True))
        )
        wanted = Reserve(
            worker="w1", budgets=claimed, amount_nusd=60, forecast_nusd=1, lease_s=LEASE_S
        )

        store.reserve(*calls[0], wanted, item=mine)
        with pytest.raises(BatchBusyError):
            store.reserve(*calls[1], replace(wanted, amount_nusd=1), item=stolen)
        assert "wait" == store.reserve(*calls[2], wanted, item=dear).verdict

        assert [mine.decision_id] == [item.decision_id for item in store.batch_items("night")]
        assert [mine.decision_id] == [one.decision.id for one in store.decisions()]
        assert (0, 60, 0, 0) == money(store.budgets()[0])

    def test_what_does_not_fit_waits_or_is_refused_and_leaves_nothing(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        reserve(store, claimed, a_call(1), 60)

        waiting = reserve(store, claimed, a_call(2), 41)
        refused = reserve(store, claimed, a_call(3), 101)

        assert ("wait", "refused") == (waiting.verdict, refused.verdict)
        assert waiting.standing is not None
        assert ("day", 100, 0, 60, 40) == (
            waiting.standing.name,
            waiting.standing.limit_nusd,
            waiting.standing.spent_nusd,
            waiting.standing.reserved_nusd,
            waiting.standing.left_nusd,
        )
        assert ["decision-1"] == [logged.decision.id for logged in store.decisions()]
        assert "reserved" == reserve(store, claimed, a_call(4), 40).verdict

    def test_a_cost_of_nothing_releases(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 60)

        store.settle(replace(call[1], status="error", cost_nusd=0), served=None)

        assert (0, 0, 0, 0) == money(store.budgets()[0])

    def test_an_unknown_cost_is_taken_for_the_whole_reservation(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 60)

        settle(store, call, None)

        assert (60, 0, 0, 1) == money(store.budgets()[0])

    def test_an_overshoot_is_booked_in_full_counted_and_an_event(self, store: Store) -> None:
        claimed = store.register("w1", [a_line(warn_at=None)], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 60)

        settle(store, call, 130)

        assert (130, 0, 70, 1) == money(store.budgets()[0])
        assert -30 == store.budgets()[0].left_nusd
        (event,) = store.events()
        assert ("overshoot", 70, ["day"]) == (
            event.kind,
            event.facts["overshoot_nusd"],
            event.facts["budgets"],
        )
        assert "refused" == reserve(store, claimed, a_call(2), 1).verdict

    def test_spending_is_warned_of_once_in_a_window(
        self, store: Store, clock: SteppedClock
    ) -> None:
        lines = [a_line(), a_line("rolled", 200, per="hour", rolling=True, warn_at=0.4)]
        claimed = store.register("w1", lines, lease_s=10 * 86_400)
        for number, cost in enumerate((79, 1, 1)):
            call = a_call(number)
            reserve(store, claimed, call, cost)
            settle(store, call, cost)
            clock.now += timedelta(minutes=5)

        events = [(e.kind, e.facts["budget"], e.facts["spent_nusd"]) for e in store.events()]

        assert {
            ("budget_warning", "day", 80),
            ("budget_warning", "rolled", 80),
        } == set(events)
        assert 2 == len(events)

        clock.now += timedelta(days=1)
        call = a_call(9)
        reserve(store, claimed, call, 100)
        settle(store, call, 100)
        assert 4 == len(store.events())

    def test_all_budgets_hold_or_none_is_touched(self, store: Store) -> None:
        lines = [a_line("a"), a_line("b", 50), a_line("c", 1_000, per="total")]
        claimed = store.register("w1", lines, lease_s=LEASE_S)

        reply = reserve(store, claimed, a_call(1), 60)

        assert reply.standing is not None
        assert ("refused", "b") == (reply.verdict, reply.standing.name)
        assert [(0, 0, 0, 0)] * 3 == [money(status) for status in store.budgets()]
        assert "reserved" == reserve(store, claimed, a_call(2), 50).verdict
        assert [50] * 3 == [status.reserved_nusd for status in store.budgets()]

    def test_a_call_settles_in_the_window_of_its_reserve(
        self, store: Store, clock: SteppedClock
    ) -> None:
        claimed = store.register("w1", [a_line()], lease_s=2 * 86_400)
        call = a_call()
        reserve(store, claimed, call, 60)

        clock.now += timedelta(days=1)
        assert "reserved" == reserve(store, claimed, a_call(2), 100).verdict
        settle(store, call, 60)

        assert (0, 100, 0, 0) == money(store.budgets()[0])

    def test_windows_turn_in_their_own_time_zone(self, store: Store, clock: SteppedClock) -> None:
        clock.now = datetime(2026, 5, 17, 21, 59, tzinfo=UTC)  # a minute to midnight in Berlin
        lines = [a_line("berlin", timezone="Europe/Berlin"), a_line("utc")]
        claimed = store.register("w1", lines, lease_s=86_400)
        call = a_call()
        reserve(store, claimed, call, 60)
        settle(store, call, 60)

        clock.now += timedelta(minutes=1)

        berlin, utc = store.budgets()
        assert (0, 60) == (berlin.spent_nusd, utc.spent_nusd)
        assert datetime(2026, 5, 18, 22, tzinfo=UTC) == berlin.window.ends_at
        assert (0.0, 22 / 24) == (berlin.elapsed, utc.elapsed)

    def test_a_rolling_window_forgets_by_buckets_and_never_early(
        self, store: Store, clock: SteppedClock
    ) -> None:
        clock.now = datetime(2026, 5, 17, 12, 2, tzinfo=UTC)  # buckets of an hour are 150 s
        claimed = store.register("w1", [a_line(per="hour", rolling=True)], lease_s=86_400)
        call = a_call()
        reserve(store, claimed, call, 100)
        settle(store, call, 100)

        clock.now += HOUR
        assert "refused" == reserve(store, claimed, a_call(2), 1).verdict
        clock.now = datetime(2026, 5, 17, 13, 2, 29, tzinfo=UTC)
        assert "refused" == reserve(store, claimed, a_call(3), 1).verdict
        clock.now = datetime(2026, 5, 17, 13, 2, 30, tzinfo=UTC)
        assert "reserved" == reserve(store, claimed, a_call(4), 100).verdict

    def test_a_rolling_window_holds_when_the_clock_is_set_back(
        self, store: Store, clock: SteppedClock
    ) -> None:
        claimed = store.register("w1", [a_line(per="hour", rolling=True)], lease_s=86_400)
        call = a_call()
        reserve(store, claimed, call, 100)
        settle(store, call, 100)

        clock.now -= timedelta(minutes=30)

        assert "refused" == reserve(store, claimed, a_call(2), 1).verdict

    def test_sessions_have_windows_of_their_own(self, store: Store) -> None:
        claimed = store.register("w1", [a_line("s", per="session")], lease_s=LEASE_S)
        calls = [a_call(1, session_id="ann"), a_call(2, session_id="bob"), a_call(3), a_call(4)]

        assert ["reserved"] * 4 == [reserve(store, claimed, c, 80).verdict for c in calls]
        assert "wait" == reserve(store, claimed, a_call(5, session_id="ann"), 30).verdict
        settle(store, calls[1], 90)

        assert (0, 80, 0, 0) == money(store.budgets(session_id="ann")[0])
        assert (90, 0, 10, 1) == money(store.budgets()[0])
        assert (0, 0, 0, 0) == money(store.budgets(session_id="nobody")[0])

    def test_a_total_never_turns(self, store: Store, clock: SteppedClock) -> None:
        claimed = store.register("w1", [a_line(per="total")], lease_s=10 * 365 * 86_400)
        call = a_call()
        reserve(store, claimed, call, 100)
        settle(store, call, 100)

        clock.now += timedelta(days=3 * 365)

        assert "refused" == reserve(store, claimed, a_call(2), 1).verdict
        assert store.budgets()[0].elapsed is None

    def test_the_lowest_claim_of_the_living_holds(self, store: Store, clock: SteppedClock) -> None:
        claimed = store.register("w1", [a_line(limit_nusd=100)], lease_s=LEASE_S)
        store.register("w2", [a_line(limit_nusd=70)], lease_s=30)

        assert "refused" == reserve(store, claimed, a_call(1), 71).verdict
        assert (70, (70, 100)) == (
            store.budgets()[0].line.limit_nusd,
            store.budgets()[0].claims_nusd,
        )
        assert ["budget_limits_differ"] == [event.kind for event in store.events()]

        clock.now += timedelta(seconds=31)
        assert "reserved" == reserve(store, claimed, a_call(2), 71).verdict

    def test_registering_again_changes_the_limit_and_drops_budgets(self, store: Store) -> None:
        store.register("w1", [a_line(limit_nusd=100), a_line("gone")], lease_s=LEASE_S)

        claimed = store.register("w1", [a_line(limit_nusd=30)], lease_s=LEASE_S)

        assert "refused" == reserve(store, claimed, a_call(1), 31).verdict
        assert [("day", (30,)), ("gone", ())] == [
            (status.line.name, status.claims_nusd) for status in store.budgets()
        ]

    def test_a_limit_below_what_is_committed_refuses_and_breaks_nothing(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 90)

        claimed = store.register("w1", [a_line(limit_nusd=10)], lease_s=LEASE_S)

        assert "wait" == reserve(store, claimed, a_call(2), 10).verdict
        settle(store, call, 80)
        assert "refused" == reserve(store, claimed, a_call(3), 1).verdict
        assert (80, 0, 0, 1) == money(store.budgets()[0])

    def test_another_shape_of_a_living_budget_is_refused(
        self, store: Store, clock: SteppedClock
    ) -> None:
        store.register("w1", [a_line()], lease_s=LEASE_S)

        with pytest.raises(ConfigError, match=r"'day' is per month in UTC.*per day in UTC"):
            store.register("w2", [a_line(per="month")], lease_s=LEASE_S)

        assert not store.heartbeat("w2", lease_s=LEASE_S)
        clock.now += timedelta(seconds=LEASE_S)
        store.register("w2", [a_line(per="month")], lease_s=LEASE_S)
        assert "month" == store.budgets()[0].line.per

    def test_an_override_holds_until_its_date_and_the_newest_of_them(
        self, store: Store, clock: SteppedClock
    ) -> None:
        claimed = store.register("w1", [a_line(per="total")], lease_s=10 * 86_400)
        first = Override(
            budget="day",
            limit_nusd=500,
            until=clock.now + 2 * HOUR,
            who="ann",
            why="launch",
            created_at=clock.now,
        )
        second = replace(first, limit_nusd=50, until=clock.now + HOUR, who="bob", why="calm")

        store.set_override(first)
        store.set_override(second)

        assert [second, first] == store.overrides()
        assert second == store.budgets()[0].override
        assert "refused" == reserve(store, claimed, a_call(1), 51).verdict
        clock.now += HOUR
        assert "reserved" == reserve(store, claimed, a_call(2), 500).verdict
        clock.now += HOUR
        assert "wait" == reserve(store, claimed, a_call(3), 1).verdict
        assert ["bob", "ann"] == [event.facts["who"] for event in store.events()]

    def test_a_wrong_override_says_what_to_do(self, store: Store, clock: SteppedClock) -> None:
        store.register("w1", [a_line()], lease_s=LEASE_S)
        wrong = Override(
            budget="dya",
            limit_nusd=1,
            until=clock.now + HOUR,
            who="ann",
            why="",
            created_at=clock.now,
        )

        with pytest.raises(ConfigError, match=r"no budget 'dya'.*'day'"):
            store.set_override(wrong)
        with pytest.raises(ConfigError, match="has passed"):
            store.set_override(replace(wrong, budget="day", until=clock.now))

        assert [] == store.overrides()

    def test_a_dead_worker_is_swept_and_its_calls_settled_at_their_forecast(
        self, store: Store, clock: SteppedClock
    ) -> None:
        lines = [a_line("a", 1_000), a_line("b", 1_000, per="hour", rolling=True)]
        claimed = store.register("w1", lines, lease_s=LEASE_S)
        calls = [a_call(number) for number in range(3)]
        for call in calls:
            reserve(store, claimed, call, 100)
        settle(store, calls[0], 10)
        store.register("w2", lines, lease_s=10 * LEASE_S)

        clock.now += timedelta(seconds=LEASE_S - 1)
        assert 0 == store.sweep().n_workers
        clock.now += timedelta(seconds=1)
        report = store.sweep()

        assert (1, 2, 100) == (report.n_workers, report.n_reservations, report.settled_nusd)
        assert [(110, 0, 0, 3)] * 2 == [money(status) for status in store.budgets()]
        (attempt,) = store.decision(calls[1][0].id).attempts
        assert ("abandoned", 50, True, "LeaseExpired") == (
            attempt.status,
            attempt.cost_nusd,
            attempt.estimated,
            attempt.error_class,
        )
        assert [(1_000,)] * 2 == [status.claims_nusd for status in store.budgets()]
        assert ["lease_expired"] == [event.kind for event in store.events()]
        settle(store, calls[1], 7)
        assert [(110, 0, 0, 3)] * 2 == [money(status) for status in store.budgets()]
        assert 0 == store.sweep().n_workers

    def test_reserves_and_heartbeats_keep_a_worker_alive(
        self, store: Store, clock: SteppedClock
    ) -> None:
        claimed = store.register("w1", [a_line(limit_nusd=1_000)], lease_s=LEASE_S)
        for number in range(5):
            clock.now += timedelta(seconds=LEASE_S - 1)
            assert "reserved" == reserve(store, claimed, a_call(number), 1).verdict
            clock.now += timedelta(seconds=LEASE_S - 1)
            assert store.heartbeat("w1", lease_s=LEASE_S)

        assert 0 == store.sweep().n_workers

    def test_a_swept_worker_must_register_again(self, store: Store, clock: SteppedClock) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        clock.now += timedelta(seconds=LEASE_S)
        store.sweep()

        assert Reply("expired") == reserve(store, claimed, a_call(1), 1)
        assert not store.heartbeat("w1", lease_s=LEASE_S)
        again = store.register("w1", [a_line()], lease_s=LEASE_S)
        assert claimed == again
        assert "reserved" == reserve(store, again, a_call(1), 1).verdict

    def test_a_worker_retires_with_its_claims_unless_it_holds_money(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call()
        reserve(store, claimed, call, 60)

        store.retire("w1")
        assert (100,) == store.budgets()[0].claims_nusd
        settle(store, call, 60)
        store.retire("w1")

        assert ((), 100) == (store.budgets()[0].claims_nusd, store.budgets()[0].line.limit_nusd)

    def test_a_late_answer_of_a_batch_that_was_taken_over_costs_in_the_log_what_it_cost(
        self, store: Store
    ) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call(batch_id="night")
        item = BatchItem(batch_id="night", item=0, decision_id=call[0].id, status="open", owner="a")
        store.hold_batch("night", owner="a", request_keys=bytes(16))
        wanted = Reserve(
            worker="w1", budgets=claimed, amount_nusd=60, forecast_nusd=30, lease_s=LEASE_S
        )
        store.reserve(*call, wanted, item=item)
        store.release_batch("night", owner="a")
        store.hold_batch("night", owner="b", request_keys=bytes(16))
        (lost,) = store.decision(call[0].id).attempts
        assert ("abandoned", "LeaseExpired") == (lost.status, lost.error_class)

        settle(store, call, 45)

        assert (45, 0, 0, 1) == money(store.budgets()[0])
        (attempt,) = store.decision(call[0].id).attempts
        assert ("ok", 45, None) == (attempt.status, attempt.cost_nusd, attempt.error_class)
        settle(store, call, 50)
        assert (45, 0, 0, 1) == money(store.budgets()[0])

    def test_a_forgotten_call_is_settled_all_the_same(self, store: Store) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        call = a_call(session_id="ann")
        reserve(store, claimed, call, 60)
        store.forget(session_id="ann")

        settle(store, call, 45)

        assert (45, 0, 0, 1) == money(store.budgets()[0])
        with pytest.raises(UnknownDecisionError):
            settle(store, call, 45)

    def test_a_second_attempt_of_a_decision_has_a_reservation_of_its_own(
        self, store: Store
    ) -> None:
        claimed = store.register("w1", [a_line()], lease_s=LEASE_S)
        decision, first = a_call()
        second = replace(first, id="second", number=2)
        reserve(store, claimed, (decision, first), 60)
        store.settle(replace(first, status="error", cost_nusd=0), served=None)

        assert "reserved" == reserve(store, claimed, (decision, second), 100).verdict
        settle(store, (decision, second), 90)

        assert (90, 0, 0, 1) == money(store.budgets()[0])
        assert ["error", "ok"] == [a.status for a in store.decision(decision.id).attempts]

    def test_threads_that_reserve_at_once_are_served_exactly_as_often_as_fits(
        self, store: Store
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        lines = [a_line("a", 25), a_line("b", 40, per="hour", rolling=True)]
        claimed = store.register("w1", lines, lease_s=LEASE_S)

        def call(number: int) -> bool:
            mine = a_call(number)
            if reserve(store, claimed, mine, 1).verdict != "reserved":
                return False
            settle(store, mine, 1)
            return True

        with ThreadPoolExecutor(8) as threads:
            served = list(threads.map(call, range(100)))

        assert 25 == sum(served)
        assert [(25, 0, 0, 25)] * 2 == [money(status) for status in store.budgets()]
