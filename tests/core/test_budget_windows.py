"""Windows of money: by the calendar of a time zone, or rolling by buckets; keys that sort."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.budgets import (
    Standing,
    Window,
    elapsed_share,
    most_binding,
    session_key,
    window_at,
)
from optllm_router.records import BudgetLine

NOON = datetime(2026, 5, 17, 12, 34, 56, 789, tzinfo=UTC)  # a Sunday
MOMENTS = st.integers(946_684_800, 2_840_140_800).map(lambda s: datetime.fromtimestamp(s, tz=UTC))
ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Asia/Beirut"]
)


def at(per: str, now: datetime = NOON, zone: str = "UTC", *, rolling: bool = False) -> Window:
    line = BudgetLine(name="b", limit_nusd=1, per=per, timezone=zone, rolling=rolling)
    return window_at(line, now, "session x")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@pytest.mark.parametrize(
    ("per", "zone", "starts_at", "ends_at"),
    [
        ("hour", "UTC", utc(2026, 5, 17, 12), utc(2026, 5, 17, 13)),
        ("hour", "Asia/Kathmandu", utc(2026, 5, 17, 12, 15), utc(2026, 5, 17, 13, 15)),
        ("day", "UTC", utc(2026, 5, 17), utc(2026, 5, 18)),
        ("day", "Europe/Berlin", utc(2026, 5, 16, 22), utc(2026, 5, 17, 22)),
        ("week", "UTC", utc(2026, 5, 11), utc(2026, 5, 18)),
        ("month", "America/New_York", utc(2026, 5, 1, 4), utc(2026, 6, 1, 4)),
    ],
)
def test_calendar_windows_begin_and_end_in_their_time_zone(per, zone, starts_at, ends_at):
    found = at(per, zone=zone)

    assert (starts_at, ends_at) == (found.starts_at, found.ends_at)
    assert found.key == found.first_key == found.last_key


def test_a_day_of_summer_time_has_as_many_hours_as_the_clock_gives_it():
    short = at("day", utc(2026, 3, 29, 12), "Europe/Berlin")
    long = at("day", utc(2026, 10, 25, 12), "Europe/Berlin")

    assert timedelta(hours=23) == short.ends_at - short.starts_at
    assert timedelta(hours=25) == long.ends_at - long.starts_at


def test_an_hour_that_comes_twice_is_two_windows():
    first = at("hour", utc(2026, 10, 25, 0, 30), "Europe/Berlin")
    again = at("hour", utc(2026, 10, 25, 1, 30), "Europe/Berlin")

    assert first.key != again.key


def test_a_day_that_skips_midnight_begins_when_the_clocks_are_set():
    found = at("day", utc(2026, 3, 29, 12), "Asia/Beirut")  # 00:00 is 01:00

    assert utc(2026, 3, 28, 22) == found.starts_at


def test_december_ends_with_the_year():
    assert utc(2027, 1, 1) == at("month", utc(2026, 12, 31, 23)).ends_at


def test_windows_without_a_calendar_have_keys_only():
    assert Window("total", "total", "total") == at("total")
    assert Window("session x", "session x", "session x") == at("session")


@given(now=MOMENTS, zone=ZONES, per=st.sampled_from(["hour", "day", "week", "month"]))
def test_every_moment_lies_in_its_window_and_the_next_one_begins_where_it_ends(now, zone, per):
    found = at(per, now, zone)

    assert found.starts_at <= now < found.ends_at
    assert found.ends_at == at(per, found.ends_at, zone).starts_at
    assert found == at(per, found.starts_at, zone)
    assert found.starts_at.astimezone(ZoneInfo(zone)).minute == 0


@given(
    now=MOMENTS,
    ago=st.integers(0, 40 * 86_400),
    per=st.sampled_from(["hour", "day", "week", "month"]),
)
def test_a_rolling_window_counts_all_of_its_length_and_a_bucket_more_at_most(now, ago, per):
    length = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}[per]
    window, then = at(per, now, rolling=True), at(per, now - timedelta(seconds=ago), rolling=True)

    is_counted = window.first_key <= then.key <= window.last_key

    if ago <= length:
        assert is_counted
    if ago > length * 25 / 24:
        assert not is_counted


def test_a_session_is_known_by_a_hash_and_a_call_without_one_is_its_own():
    assert session_key("ann", "d1") == session_key("ann", "d2")
    assert "ann" not in session_key("ann", "d1")
    assert session_key("\ud83d", "d1") != session_key("ann", "d1")
    assert "call d1" == session_key(None, "d1")


def test_the_share_of_a_window_that_has_passed():
    day = at("day")

    assert 0.0 == elapsed_share(day, day.starts_at)
    assert 0.5 == elapsed_share(day, day.starts_at + timedelta(hours=12))
    assert 1.0 == elapsed_share(day, day.ends_at + timedelta(hours=12))
    assert elapsed_share(at("total"), NOON) is None


def standing(name: str, limit: int, spent: int, reserved: int) -> Standing:
    return Standing(name, at("total"), limit, spent, reserved)


def test_an_amount_fits_waits_or_is_refused():
    one = standing("a", 100, 50, 30)

    assert ["reserved", "wait", "wait", "refused"] == [one.verdict(n) for n in (20, 21, 50, 51)]


def test_a_refusal_binds_before_a_wait_and_the_least_left_before_more():
    waits, refuses, tighter = (
        standing("waits", 100, 0, 99),
        standing("refuses", 100, 60, 0),
        standing("tighter", 100, 70, 0),
    )

    assert most_binding([waits], 1) is None
    assert waits == most_binding([waits, refuses], 40)
    assert tighter == most_binding([waits, refuses, tighter], 50)
