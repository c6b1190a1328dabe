"""Which budget binds which call, what it is on course for, and the words in which it refuses."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeVar

from optllm_router.core.budgets import Standing
from optllm_router.core.policy.wording import usd_text
from optllm_router.errors import BudgetExceededError
from optllm_router.records import NANO_PER_USD, BudgetLine, CapLine
from optllm_router.store.shares import BudgetStatus

Line = TypeVar("Line", BudgetLine, CapLine)


def binding(
    lines: Iterable[Line], *, tags: Collection[str], task: str, candidate: str
) -> tuple[Line, ...]:
    """Return the budgets that bind a call of a candidate, in the order given."""
    return tuple(line for line in lines if _binds(line, tags, task, candidate))


def refusal(standing: Standing, needed_nusd: int) -> BudgetExceededError:
    """Build the error for a call whose worst case does not fit a budget."""
    limit, left = standing.limit_nusd / NANO_PER_USD, standing.left_nusd / NANO_PER_USD
    ends_at = standing.window.ends_at
    until = "" if ends_at is None else f", or wait until {ends_at:%Y-%m-%d %H:%M} UTC"
    return BudgetExceededError(
        f"the budget {standing.name!r} of {usd_text(limit)} USD has {usd_text(left)} USD left "
        f"({_amount(standing.spent_nusd)} USD spent, {_amount(standing.reserved_nusd)} USD "
        f"reserved by calls under way), less than {_amount(needed_nusd)} USD, the worst case of "
        "the cheapest candidate that may serve this request; no money was spent on it. Raise the "
        "budget (`optllm budget set`), lower `max_output_tokens`, which bounds the worst case"
        f"{until}",
        budget=standing.name,
        limit_usd=limit,
        left_usd=left,
    )


def unpriced_refusal(line: BudgetLine, candidate: str) -> BudgetExceededError:
    """Build the error for a pin of unknown price, which no budget can bound."""
    limit = line.limit_nusd / NANO_PER_USD
    return BudgetExceededError(
        f"{candidate!r} has no known token price and the hard budget {line.name!r} of "
        f"{usd_text(limit)} USD binds: no call was made. Make it a candidate with prices, or lift "
        "the budget",
        budget=line.name,
        limit_usd=limit,
        left_usd=limit,
    )


def forecast_nusd(status: BudgetStatus) -> int | None:
    """Return what a budget will have spent at its window's end if it goes on as it began.

    None where nothing of the window has passed, or the window has no end.
    """
    if not status.elapsed:
        return None
    return round(status.spent_nusd / status.elapsed)


def _binds(line: BudgetLine | CapLine, tags: Collection[str], task: str, candidate: str) -> bool:
    if line.scope == "tag":
        return line.value in tags
    if line.scope == "task":
        return line.value == task
    return line.scope == "all" or line.value == candidate


def _amount(nusd: int) -> str:
    return usd_text(nusd / NANO_PER_USD)
