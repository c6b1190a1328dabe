"""Where shared budgets stand, in USD, for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from optllm_router.ledger.binding import forecast_nusd
from optllm_router.records import NANO_PER_USD, AtCap, BudgetPer, BudgetScope
from optllm_router.store.shares import BudgetStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetReport:
    """Where a budget stands in its window now.

    `limit_usd` is the one that holds: the lowest that a running process has, unless an override
    replaces it until `overridden_until`. `left_usd` is what is neither spent nor reserved, negative
    after an overshoot or a lower limit. `forecast_usd` is what the window will have cost at its end
    if it goes on as it began, None where it has no end. `starts_at` and `ends_at` are None where
    the window has none.
    """

    name: str
    scope: BudgetScope
    value: str
    per: BudgetPer
    rolling: bool
    timezone: str
    warn_at: float | None
    at_cap: AtCap
    limit_usd: float
    spent_usd: float
    reserved_usd: float
    left_usd: float
    overshoot_usd: float
    forecast_usd: float | None
    n_calls: int
    starts_at: datetime | None
    ends_at: datetime | None
    overridden_until: datetime | None
    overridden_by: str | None
    overridden_why: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, times as datetimes."""
        return asdict(self)


def budget_report(status: BudgetStatus) -> BudgetReport:
    """Return a budget's standing in USD."""
    line, window, override = status.line, status.window, status.override
    forecast = forecast_nusd(status)
    return BudgetReport(
        name=line.name,
        scope=line.scope,
        value=line.value,
        per=line.per,
        rolling=line.rolling,
        timezone=line.timezone,
        warn_at=line.warn_at,
        at_cap=line.at_cap,
        limit_usd=line.limit_nusd / NANO_PER_USD,
        spent_usd=status.spent_nusd / NANO_PER_USD,
        reserved_usd=status.reserved_nusd / NANO_PER_USD,
        left_usd=status.left_nusd / NANO_PER_USD,
        overshoot_usd=status.overshoot_nusd / NANO_PER_USD,
        forecast_usd=None if forecast is None else forecast / NANO_PER_USD,
        n_calls=status.n_calls,
        starts_at=window.starts_at,
        ends_at=window.ends_at,
        overridden_until=None if override is None else override.until,
        overridden_by=None if override is None else override.who,
        overridden_why=None if override is None else override.why,
    )
