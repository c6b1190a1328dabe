"""A hard line of money for one call or one batch, kept in this process, exact under threads.

What is spent plus what is reserved never exceeds the limit, as long as no call costs more than its
reserve. A call that does is booked in full all the same.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from optllm_router.core.budgets import Verdict
from optllm_router.core.policy.wording import usd_text
from optllm_router.errors import BudgetExceededError
from optllm_router.records import NANO_PER_USD


@dataclass(frozen=True, slots=True)
class Balance:
    """Where a cap stands, in nano-USD."""

    limit_nusd: int
    spent_nusd: int
    reserved_nusd: int

    @property
    def left_nusd(self) -> int:
        """What is neither spent nor reserved; negative after an overshoot."""
        return self.limit_nusd - self.spent_nusd - self.reserved_nusd


class Cap:
    """A hard budget of one call or one batch; see the module's docstring.

    Args:
        name: what errors call it, e.g. "batch".
        limit_nusd: the most that may be spent, at least 0.
    """

    def __init__(self, name: str, limit_nusd: int) -> None:
        self.name = name
        self.limit_nusd = limit_nusd
        self._spent = 0
        self._reserved = 0
        self._lock = threading.Lock()

    @property
    def balance(self) -> Balance:
        """A consistent reading."""
        with self._lock:
            return Balance(self.limit_nusd, self._spent, self._reserved)

    def reserve(self, amount_nusd: int) -> Verdict:
        """Set an amount aside.

        Returns "wait" when it fails only because of other reservations, which may yet be settled
        for less, and "refused" when it could not fit even then.
        """
        with self._lock:
            if self._spent + self._reserved + amount_nusd <= self.limit_nusd:
                self._reserved += amount_nusd
                return "reserved"
            fits_alone = self._spent + amount_nusd <= self.limit_nusd
            return "wait" if fits_alone else "refused"

    def settle(self, reserved_nusd: int, spent_nusd: int) -> None:
        """Turn a reservation into what was really spent (0 releases it)."""
        with self._lock:
            self._reserved -= reserved_nusd
            self._spent += spent_nusd

    def refusal(self, needed_nusd: int) -> BudgetExceededError:
        """Build the error for a call whose worst case does not fit."""
        balance = self.balance
        left, limit = balance.left_nusd / NANO_PER_USD, self.limit_nusd / NANO_PER_USD
        needed = usd_text(needed_nusd / NANO_PER_USD)
        return BudgetExceededError(
            f"the {self.name} budget of {usd_text(limit)} USD has {usd_text(left)} USD left, less "
            f"than {needed} USD, the worst case of the cheapest candidate that may serve this "
            "request; no money was spent on it. Raise the budget, or lower `max_output_tokens`, "
            "which bounds the worst case",
            budget=self.name,
            limit_usd=limit,
            left_usd=left,
        )

    def unpriced_refusal(self, candidate: str) -> BudgetExceededError:
        """Build the error for a pin of unknown price, which no budget can bound."""
        limit = self.limit_nusd / NANO_PER_USD
        return BudgetExceededError(
            f"{candidate!r} has no known token price and the hard {self.name} budget of "
            f"{usd_text(limit)} USD binds: no call was made. Make it a candidate with prices, or "
            "lift the budget",
            budget=self.name,
            limit_usd=limit,
            left_usd=self.balance.left_nusd / NANO_PER_USD,
        )
