"""What a budget counts together, and whether an amount still fits: windows, keys and verdicts.

The time is an argument: the edges of windows belong to the database's clock, which the store asks.
A window's key names it for ever, so what is settled late goes where it was reserved. Keys of one
kind sort by time, which makes the buckets of a rolling window a range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from optllm_router.records import BudgetLine, BudgetPer

Verdict = Literal["reserved", "wait", "refused"]

N_BUCKETS = 24
ROLLING_S = {"hour": 3_600, "day": 86_400, "week": 604_800, "month": 2_592_000}
"""How long a rolling window is, in seconds; a month has 30 days."""

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """The accounts that count at one moment, and when they begin and end (None for never).

    New money is booked under `key`; what counts has keys from `first_key` to `last_key`. They
    differ for rolling windows only: the current bucket and 24 before it, so that the oldest one
    counts whole while it expires, and any later ones, for a clock that was set back.
    """

    key: str
    first_key: str
    last_key: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        """Whether a moment lies between both ends; never where there are not two."""
        if self.starts_at is None or self.ends_at is None:
            return False
        return self.starts_at <= moment < self.ends_at


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a budget stands in one window, in nano-USD."""

    name: str
    window: Window
    limit_nusd: int
    spent_nusd: int
    reserved_nusd: int

    @property
    def left_nusd(self) -> int:
        """What is neither spent nor reserved; negative after an overshoot or a lower limit."""
        return self.limit_nusd - self.spent_nusd - self.reserved_nusd

    def verdict(self, amount_nusd: int) -> Verdict:
        """Say whether an amount fits: now, but for other reservations, or not at all."""
        if amount_nusd <= self.left_nusd:
            return "reserved"
        return "wait" if amount_nusd <= self.limit_nusd - self.spent_nusd else "refused"


def most_binding(standings: Iterable[Standing], amount_nusd: int) -> Standing | None:
    """Return the budget that an amount fits least: refusals before waits; None when it fits all.

    Of several, the one with the least left, the first of equals.
    """
    tight = [one for one in standings if one.verdict(amount_nusd) != "reserved"]
    return min(
        tight,
        key=lambda one: (one.verdict(amount_nusd) != "refused", one.left_nusd),
        default=None,
    )


def window_at(line: BudgetLine, now: datetime, session: str) -> Window:
    """Return the window of a budget at a moment, for a call of a session (see `session_key`)."""
    if line.per == "total":
        return _fixed("total")
    if line.per == "session":
        return _fixed(session)
    if line.rolling:
        return _rolling(line.per, now)
    starts_at, ends_at = _calendar(line.per, now, ZoneInfo(line.timezone))
    return _fixed(f"{line.per} {_text(starts_at)}", starts_at, ends_at)


def session_key(session_id: str | None, decision_id: str) -> str:
    """Return the window key of a session; a call without one is a session of its own.

    A session's id is hashed: it is the caller's, and accounts outlive what is forgotten.
    """
    if session_id is None:
        return f"call {decision_id}"
    text = session_id.encode("utf-8", "surrogatepass")
    return f"session {hashlib.sha256(text).hexdigest()[:32]}"


def elapsed_share(window: Window, now: datetime) -> float | None:
    """Return which share of a window has passed, in [0, 1]; None where it has no two ends."""
    if window.starts_at is None or window.ends_at is None:
        return None
    share = (now - window.starts_at) / (window.ends_at - window.starts_at)
    return min(max(share, 0.0), 1.0)


def _rolling(per: BudgetPer, now: datetime) -> Window:
    """Count the last 24 buckets and the current one: never less than the window itself."""
    bucket_s = ROLLING_S[per] // N_BUCKETS
    number = int(now.timestamp() // 1) // bucket_s
    latest, oldest = (
        datetime.fromtimestamp(bucket_s * (number - ago), tz=UTC) for ago in (0, N_BUCKETS)
    )
    prefix = f"rolling {per} "
    return Window(f"{prefix}{_text(latest)}", f"{prefix}{_text(oldest)}", f"{prefix}~", oldest)


def _fixed(key: str, starts_at: datetime | None = None, ends_at: datetime | None = None) -> Window:
    return Window(key, key, key, starts_at, ends_at)


def _text(moment: datetime) -> str:
    """Write a moment in UTC so that it sorts by time."""
    return moment.isoformat(timespec="seconds")


def _calendar(per: BudgetPer, now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return where the hour, day, week or month of a moment begins and ends, in UTC."""
    local = now.astimezone(zone)
    if per == "hour":
        into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        begin = now.astimezone(UTC) - into
        return begin, begin + timedelta(hours=1)
    day = local.date()
    if per == "day":
        first, following = day, day + _DAY
    elif per == "week":
        first = day - day.weekday() * _DAY
        following = first + 7 * _DAY
    else:
        first = day.replace(day=1)
        following = (first + 31 * _DAY).replace(day=1)
    return _midnight(first, zone), _midnight(following, zone)


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """Return the first moment of a day; where clocks skip midnight, when they do."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
