"""What the store is asked of shared budgets, and what it says of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from optllm_router.core.budgets import Standing, Verdict, Window
from optllm_router.records import BudgetLine


@dataclass(frozen=True, slots=True)
class ClaimedBudget:
    """A budget of this process's settings, with its id in the store."""

    id: int
    line: BudgetLine


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve:
    """What to set aside for one attempt, on which budgets, for which worker.

    `amount_nusd` is the attempt's worst case, at least 0. `forecast_nusd` is what it is taken to
    have cost if its worker dies. `lease_s` is how long the worker lives without a sign of life.
    """

    worker: str
    budgets: tuple[ClaimedBudget, ...]
    amount_nusd: int
    forecast_nusd: int
    lease_s: float


@dataclass(frozen=True, slots=True)
class Reply:
    """How a reserve went; `standing` is the budget that binds, None when it was reserved.

    "wait": it fails only because of other reservations, which may come to less. "refused": it
    could not fit even then. "expired": the worker is not there (any more), it must register.
    """

    verdict: Verdict | Literal["expired"]
    standing: Standing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """A limit that holds instead of the claimed ones until a date, who set it, and why."""

    budget: str
    limit_nusd: int
    until: datetime
    who: str
    why: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatus:
    """Where a budget stands now.

    `line` has the limit that holds; `claims_nusd` are the distinct limits of the live workers,
    lowest first. `elapsed` is the share of the window that has passed, None where it has no ends.
    `n_calls` counts the settled calls of the window. All money in nano-USD.
    """

    line: BudgetLine
    window: Window
    spent_nusd: int
    reserved_nusd: int
    overshoot_nusd: int
    n_calls: int
    elapsed: float | None
    claims_nusd: tuple[int, ...]
    override: Override | None

    @property
    def left_nusd(self) -> int:
        """What is neither spent nor reserved; negative after an overshoot or a lower limit."""
        return self.line.limit_nusd - self.spent_nusd - self.reserved_nusd


@dataclass(frozen=True, slots=True)
class SweepReport:
    """How many dead workers were removed, how many calls they had under way, settled for what."""

    n_workers: int
    n_reservations: int
    settled_nusd: int

    def plus(self, other: SweepReport) -> SweepReport:
        """Return both together."""
        return SweepReport(
            self.n_workers + other.n_workers,
            self.n_reservations + other.n_reservations,
            self.settled_nusd + other.settled_nusd,
        )
