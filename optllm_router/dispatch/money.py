"""The hard lines of money of one router, and which of them bind which call.

Three kinds: what policies cap (a `Budget`), what `[[budgets]]` cap, and what is left of a window
that all processes on the store share, which the ledger holds. A budget per call or batch is a `Cap`
in this process; one that several candidates share knows which of them it binds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from optllm_router.core.cost import usd_to_nusd
from optllm_router.core.pacing import allowance_nusd
from optllm_router.core.policy import Budget, Policy, describe
from optllm_router.dispatch.offers import Offer
from optllm_router.dispatch.policies import shared_budgets
from optllm_router.dispatch.requests import Request
from optllm_router.errors import ConfigError, StoreError
from optllm_router.ledger import Cap, Ledger, Turns, binding
from optllm_router.records import NANO_PER_USD, AtCap, BudgetLine, Candidate, CapLine
from optllm_router.store.base import Store
from optllm_router.store.shares import BudgetStatus

logger = logging.getLogger("optllm_router")

MAX_ASKED = 200  # budgets across calls that come with calls


@dataclass(frozen=True, slots=True)
class BoundCap:
    """A cap in this process; `candidate` is whom it binds alone, None for all."""

    cap: Cap
    candidate: str | None = None
    at_cap: AtCap = "degrade"

    def binds(self, candidate: Candidate) -> bool:
        """Whether it binds a call of a candidate."""
        return self.candidate is None or self.candidate == candidate.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What binds one call: caps in this process, and lines of the ledger.

    Of the `caps`, the last one is its batch's, where it belongs to one that has a cap.
    """

    money: Money
    caps: tuple[BoundCap, ...]
    asked: tuple[BudgetLine, ...]
    tags: tuple[str, ...]
    task: str

    def lines(self, offer: Offer) -> tuple[BudgetLine, ...]:
        """Return the lines of the ledger that bind a call of a candidate.

        What costs nothing is free to go on where a budget lets only such calls go on.
        """
        found = self._lines_of(offer.candidate)
        if offer.worst_nusd == 0:
            found = tuple(line for line in found if line.at_cap != "cheapest_free")
        return found

    def binds(self, candidate: Candidate) -> bool:
        """Whether a hard budget binds a call of a candidate."""
        is_capped = any(bound.binds(candidate) for bound in self.caps)
        return is_capped or bool(self._lines_of(candidate))

    def _lines_of(self, candidate: Candidate) -> tuple[BudgetLine, ...]:
        ledger = self.money.ledger
        found = ledger.binding(tags=self.tags, task=self.task, candidate=candidate.name)
        return (*found, *self.asked)

    @property
    def may_bind(self) -> bool:
        """Whether a hard budget binds the call, at least if a certain candidate serves it."""
        lines = self.money.ledger.lines
        return bool(self.caps or self.asked) or any(
            line.scope == "candidate"
            or binding([line], tags=self.tags, task=self.task, candidate="")
            for line in lines
        )

    def at_cap(self, budget: str) -> AtCap:
        """Return what is done when nothing is left of a budget."""
        for line in self.money.ledger.lines:
            if line.name == budget:
                return line.at_cap
        return "degrade"


class Money:
    """The hard lines of money of one router; see the module's docstring.

    Args:
        store: where shared budgets are counted.
        lines: the shared budgets of `[[budgets]]`.
        caps: its budgets per call and per batch.
        policy: the configured one; a budget of a window across calls is a line, too.
        reserve_timeout_s: how long a call waits for what others have reserved.

    Raises: ConfigError, StoreError.
    """

    def __init__(
        self,
        store: Store,
        *,
        lines: Sequence[BudgetLine],
        caps: Sequence[CapLine],
        policy: Policy,
        reserve_timeout_s: float,
    ) -> None:
        _check_names(lines, policy)
        self._own = {
            budget: _line(budget, f"policy per {budget.per}") for budget in shared_budgets(policy)
        }
        self._asked: dict[Budget, BudgetLine] = {}
        self._caps = tuple(caps)
        self._store = store
        self.ledger = Ledger(store, (*lines, *self._own.values()))
        self.turns = Turns()
        self.reserve_timeout_s = reserve_timeout_s

    def bounds(
        self, request: Request, policies: Iterable[Policy | None], caps: Sequence[BoundCap]
    ) -> Bounds:
        """Return what binds a call, given its own and its batch's caps and the policies asked."""
        asked = [b for b in shared_budgets(*policies) if b not in self._own]
        return Bounds(
            money=self,
            caps=tuple(caps),
            asked=tuple(self._line_of(budget) for budget in asked),
            tags=request.tags,
            task=request.query.task,
        )

    def caps_of_call(self, request: Request, *, is_alone: bool) -> list[BoundCap]:
        """Return the caps that `[[budgets]]` set for a call; alone it is a batch of one."""
        lines = [line for line in self._caps if line.per == "call" or is_alone]
        return _matching([(line, _cap(line)) for line in lines], request)

    def caps_of_batch(self) -> list[tuple[CapLine, Cap]]:
        """Return the caps that `[[budgets]]` set for all calls of a batch together."""
        return [(line, _cap(line)) for line in self._caps if line.per == "batch"]

    def left_usd(self, budget: Budget, session_id: str | None = None) -> float | None:
        """Return what is left of a policy's window in USD; None for sessions without an id.

        Raises: StoreError.
        """
        if budget.per == "session" and session_id is None:
            return None
        status = self._statuses(session_id).get(self._line_of(budget).name)
        return budget.usd if status is None else min(status.left_nusd / NANO_PER_USD, budget.usd)

    def allowances(self) -> dict[Policy, float | None]:
        """Return what a call may spend, in USD, of every window that policies aim at.

        It is None while too little is known of a window. Raises: StoreError.
        """
        lines = {**self._own, **self._asked}
        found = self._statuses(None) if lines else {}
        allowed: dict[Policy, float | None] = {}
        for budget, line in lines.items():
            status = found.get(line.name)
            if status is None:
                continue
            each = allowance_nusd(status.left_nusd, status.n_calls, status.elapsed)
            allowed[budget] = None if each is None else each / NANO_PER_USD
        return allowed

    def close(self) -> None:
        """Withdraw this process's claims; where the store fails, its lease ends them."""
        try:
            self.ledger.close()
        except StoreError as error:
            logger.warning("the shared budgets are left to their lease: %s", error)

    def _statuses(self, session_id: str | None) -> dict[str, BudgetStatus]:
        found = self._store.budgets(session_id=session_id)
        return {status.line.name: status for status in found}

    def _line_of(self, budget: Budget) -> BudgetLine:
        """Return the line of a policy; one that was asked for with a call binds such calls only."""
        if budget in self._own:
            return self._own[budget]
        if budget not in self._asked and len(self._asked) >= MAX_ASKED:
            raise ConfigError(
                f"`policy={budget!r}` would be one budget across calls more than the {MAX_ASKED} "
                "that a process counts: use one for many calls, or a tag with [[budgets]]"
            )
        return self._asked.setdefault(budget, _line(budget, f"policy {describe(budget)}"))


def in_batch(caps: Sequence[tuple[CapLine, Cap]], request: Request) -> list[BoundCap]:
    """Return those of a batch's caps that bind one of its calls."""
    return _matching(caps, request)


def _matching(caps: Sequence[tuple[CapLine, Cap]], request: Request) -> list[BoundCap]:
    """Return the caps that bind a request, at least if a certain candidate serves it."""
    found = []
    for line, cap in caps:
        asked = line.value if line.scope == "candidate" else ""
        if binding([line], tags=request.tags, task=request.query.task, candidate=asked):
            found.append(BoundCap(cap, asked or None, line.at_cap))
    return found


def _check_names(lines: Sequence[BudgetLine], policy: Policy) -> None:
    """Refuse a budget of the settings that has the name of the policy's. Raises: ConfigError."""
    taken = {f"policy per {budget.per}" for budget in shared_budgets(policy)}
    for line in lines:
        if line.name in taken:
            raise ConfigError(
                f"the budget {line.name!r} of [[budgets]] has the name under which that of the "
                "policy is counted: give it another name"
            )


def _cap(line: CapLine) -> Cap:
    return Cap(line.name, line.limit_nusd)


def _line(budget: Budget, name: str) -> BudgetLine:
    return BudgetLine(name=name, limit_nusd=usd_to_nusd(budget.usd), per=budget.per)  # type: ignore[arg-type]  # `is_shared` has checked it
