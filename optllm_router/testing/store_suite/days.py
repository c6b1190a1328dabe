"""What was spent per candidate and day: what a bill is compared with."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from optllm_router.store.base import SpentDay, Store
from optllm_router.testing.store_suite.entries import a_decision, an_attempt

FIRST, SECOND = date(2026, 11, 1), date(2026, 11, 2)


class Days:
    """What every candidate cost on every day."""

    def test_what_was_spent_is_summed_per_candidate_and_utc_day(self, store: Store) -> None:
        evening = datetime(2026, 11, 1, 23, 59, 59, 999_999, tzinfo=UTC)
        spend(store, 1, evening, cost_nusd=3, estimated=True)
        spend(store, 2, evening + timedelta(microseconds=1), cost_nusd=10**15)
        spend(store, 3, evening, cost_nusd=4)
        spend(store, 4, evening.astimezone(timezone(timedelta(hours=9))), cost_nusd=None)
        spend(store, 5, evening, candidate="big", cost_nusd=7)

        days = store.spent_by_day(FIRST, SECOND)

        assert [
            spent("big", FIRST, cost_nusd=7),
            spent("small", FIRST, cost_nusd=7, estimated_nusd=3, n_unpriced=1, n_calls=3),
            spent("small", SECOND, cost_nusd=10**15),
        ] == days
        assert days[2:] == store.spent_by_day(SECOND, SECOND)
        assert [] == store.spent_by_day(date(2026, 10, 1), date(2026, 10, 31))

    def test_what_no_provider_bills_is_left_out(self, store: Store) -> None:
        noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
        spend(store, 1, noon, kind="import", cost_nusd=5)
        spend(store, 2, noon, cache_hit=True, cost_nusd=0)
        spend(store, 3, noon, status="error", cost_nusd=0)
        assert [] == store.spent_by_day(FIRST, FIRST)

        spend(store, 4, noon, status="error", cost_nusd=6, estimated=True)
        spend(store, 5, noon, status="open", cost_nusd=2, estimated=True)

        (day,) = store.spent_by_day(FIRST, FIRST)

        assert (2, 8, 8) == (day.n_calls, day.cost_nusd, day.estimated_nusd)


def spend(
    store: Store, number: int, moment: datetime, *, kind: str = "route", **facts: Any
) -> None:
    """Write a decision of another time with one attempt, which began at `moment`."""
    decision = a_decision(number, kind=kind)
    store.record(decision, [an_attempt(decision, started_at=moment, **facts)])


def spent(candidate: str, day: date, **facts: int) -> SpentDay:
    """Return a day as the store does, of one priced call where nothing else is said."""
    values = {"n_calls": 1, "estimated_nusd": 0, "n_unpriced": 0, **facts}
    values["n_tokens"] = 30 * values["n_calls"]
    return SpentDay(candidate=candidate, day=day, **values)
