"""A batch under a policy and a hard budget: planned as a whole, dispatched in slices, re-planned.

Workers take one assignment after the other. Under a batch budget the rest is planned again every
slice, on limit - spent - forecast of what is in flight - two worst cases kept back, so that
realised costs steer what is left. Every assignment reserves its worst case first: one that does not
fit because of other calls in flight waits for them; one that could not fit even then slides to the
best column that does; when none does, the query is refused and nothing is spent on it.
"""

from __future__ import annotations

import threading
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

import numpy as np

from optllm_router.core.estimates import Estimates
from optllm_router.core.features import SparseText
from optllm_router.core.planning import Choice, Plan, aligned_optimism, plan_batch
from optllm_router.core.policy import Budget, Policy, describe
from optllm_router.dispatch.deciding import (
    Decided,
    RouterState,
    decided,
    unlearned_reason,
)
from optllm_router.dispatch.offers import preferences
from optllm_router.errors import InfeasiblePolicyError, RouterError
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Bools, Floats, Ints

SLICES = 25
N_KEPT_BACK = 2
MIN_SLICE = 16


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a worker does next: ask this candidate for that item, and tell `finish` when it is over.

    `reserved_nusd` is set aside for its first attempt in the batch's cap, whose later attempts
    reserve anew.
    """

    item: int
    decided: Decided
    reserved_nusd: int


@dataclass(frozen=True, slots=True)
class Refused:
    """An item that is not asked, and the error that stands in its place."""

    item: int
    error: RouterError


@dataclass(frozen=True, slots=True)
class Wait:
    """Everything that is left waits for calls in flight."""


Step = Assignment | Refused | Wait | None


class BatchRun:
    """Hands out the items of one batch; safe to call from many threads.

    Args:
        state: what decisions are made from; it stays the same for the whole batch.
        items: positions of the routed items in the caller's list.
        estimates: one row per item, each with a column that is able to serve it.
        texts: their hashed texts.
        policies: what to aim at, and the batch's hard cap if it has one (see `batch_policy`).

    Raises: InfeasiblePolicyError before anything is spent; once a batch goes on that has spent of
    its cap, what does not fit is refused item by item instead.
    """

    def __init__(
        self,
        state: RouterState,
        items: Sequence[int],
        estimates: Estimates,
        texts: Sequence[SparseText],
        policies: tuple[Policy, Cap | None],
    ) -> None:
        self._state = state
        self.items = list(items)
        self._estimates = estimates
        self._texts = texts
        self._policy, self.cap = policies
        self._lock = threading.Lock()
        self._books = threading.Lock()  # each time for a moment, unlike a plan
        self._next = 0
        self._in_flight_nusd: dict[int, int] = {}
        self._slice_end = 0
        self._choice: Ints = np.full(len(self.items), -1, dtype=np.int64)
        self._price = 0.0
        self._reason = describe(self._policy)
        self._replan(first=self.cap is None or not self.cap.balance.spent_nusd)

    def leave_out(self, items: Container[int]) -> None:
        """Hand out the others only: these were planned with them, but have their answers."""
        keep = np.array([item not in items for item in self.items], dtype=np.bool_)
        self.items = [item for item in self.items if item not in items]
        self._texts = [text for text, kept in zip(self._texts, keep, strict=True) if kept]
        self._estimates = self._estimates.rows(np.flatnonzero(keep))
        self._choice = self._choice[keep]
        self._slice_end = min(self._slice_end, len(self.items))

    def take(self) -> Step:
        """Return the next step, None when there is nothing left to hand out."""
        with self._lock:
            if self._next >= len(self.items):
                return None
            if self._next >= self._slice_end:
                self._replan(first=False)
            step = self._step(self._next)
            if not isinstance(step, Wait):
                self._next += 1
            return step

    def finish(self, assignment: Assignment) -> None:
        """Take down that an assignment is over; what it cost is settled with the cap."""
        with self._books:
            self._in_flight_nusd.pop(assignment.item, None)

    def _step(self, row: int) -> Step:
        if self.cap is None:
            return self._assign(row, int(self._choice[row]), 0)
        worst = self._estimates.worst_nusd[row]
        price = self._price if self._is_learned(row) else None
        for column in preferences(self._estimates, row, int(self._choice[row]), price):
            needed = int(worst[column])
            verdict = self.cap.reserve(needed)
            if verdict == "reserved":
                return self._assign(row, column, needed)
            if verdict == "wait":
                return Wait()
        cheapest = int(worst[self._possible(row)].min(initial=np.iinfo(np.int64).max))
        return Refused(self.items[row], self.cap.refusal(cheapest))

    def _possible(self, row: int) -> Bools:
        learned = self._is_learned(row)
        offered = self._estimates.allowed if learned else self._estimates.able
        return np.asarray(offered[row])

    def _is_learned(self, row: int) -> bool:
        return self._state.snapshot is not None and bool(self._estimates.allowed[row].any())

    def _assign(self, row: int, column: int, reserved: int) -> Assignment:
        estimates = self._estimates.rows(np.array([row]))
        prob, cost = float(estimates.prob[0, column]), float(estimates.cost_usd[0, column])
        learned = self._is_learned(row)
        reason = self._reason if learned else unlearned_reason(self._state)
        if column != int(self._choice[row]):
            reason += "; slid to what the budget still reserves"
        choice = Choice(
            column=column,
            reason=reason,
            dual_price=self._price if learned else None,
            prob=prob if np.isfinite(prob) else None,
            cost_usd=cost if np.isfinite(cost) else None,
        )
        made = decided(
            self._state,
            estimates,
            choice,
            policy=describe(self._policy),
            features=self._texts[row],
        )
        if column != int(self._choice[row]):  # the policy's column is not the one that serves
            made = replace(made, chosen=estimates.columns[int(self._choice[row])], propensity=None)
        with self._books:
            self._in_flight_nusd[self.items[row]] = made.expected_cost_nusd or 0
        return Assignment(self.items[row], made, reserved)

    def _replan(self, *, first: bool) -> None:
        """Plan what is left; only a batch budget is planned more than once."""
        rest = np.arange(self._next, len(self.items))
        self._slice_end = len(self.items)
        if not rest.size:
            return
        learned = np.array([self._is_learned(int(row)) for row in rest], dtype=np.bool_)
        self._choose_able(rest[~learned])
        rest = rest[learned]
        if not rest.size:
            return
        if self.cap is not None:
            self._slice_end = self._next + max(MIN_SLICE, -(-len(self.items) // SLICES))
        try:
            plan = self._plan(rest)
        except InfeasiblePolicyError:
            if first:
                raise
            self._choice[rest] = self._cheapest(rest)
            self._reason = f"{describe(self._policy)}: nearly spent, the cheapest"
            return
        self._choice[rest] = plan.choice
        self._price = plan.dual_price
        self._reason = describe(self._policy) if self.cap is not None else plan.reason

    def _plan(self, rest: Ints) -> Plan:
        estimates = self._estimates.rows(rest)
        policy = self._policy
        if self.cap is not None and isinstance(policy, Budget):
            policy = replace(policy, usd=max(self._spendable(rest), 1e-12))
        optimism = aligned_optimism(self._state.snapshot, estimates)
        return plan_batch(estimates, policy, optimism, search=self._state.search)

    def _spendable(self, rest: Ints) -> float:
        """What the plan of the rest may use, in USD."""
        if self.cap is None:
            return np.inf
        with self._books:
            balance, in_flight = self.cap.balance, sum(self._in_flight_nusd.values())
        left = balance.limit_nusd - balance.spent_nusd - in_flight
        worst = np.where(
            self._estimates.allowed[rest], self._estimates.worst_nusd[rest], np.iinfo(np.int64).max
        )
        kept_back = N_KEPT_BACK * int(worst.min(axis=1).max())
        spendable = left - kept_back
        floor = self._cheapest_cost(rest)
        return float(max(spendable / NANO_PER_USD, min(left / NANO_PER_USD, floor)))

    def _cheapest_cost(self, rest: Ints) -> float:
        """The forecast cost of sending everything to its cheapest column, a little rounded up."""
        return float(self._costs(rest).min(axis=1).sum()) * (1 + 1e-9)

    def _costs(self, rest: Ints) -> Floats:
        return np.where(self._estimates.allowed[rest], self._estimates.cost_usd[rest], np.inf)

    def _cheapest(self, rest: Ints) -> Ints:
        return np.asarray(self._costs(rest).argmin(axis=1), dtype=np.int64)

    def _choose_able(self, rows: Ints) -> None:
        """Unlearned rows go to the default; to the dearest column that can, where it cannot."""
        self._choice[rows] = self._state.position(self._state.default)
        for row in rows:
            able = self._estimates.able[row]
            if not able[self._choice[row]]:
                worst = np.where(able, self._estimates.worst_nusd[row], np.int64(-1))
                self._choice[row] = int(worst.argmax())


def with_call_cap(estimates: Estimates, cap_nusd: int | None) -> Estimates:
    """Return the estimates without the columns whose worst case exceeds a cap per call."""
    if cap_nusd is None:
        return estimates
    fits = estimates.worst_nusd <= cap_nusd
    return replace(estimates, able=estimates.able & fits, allowed=estimates.allowed & fits)
