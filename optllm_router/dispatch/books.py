"""The books of one call: each attempt's reserve and settle, and its rows, in one place.

An attempt reserves its worst case from every cap that binds the call, in this process. Where a hard
budget binds, the decision and the open attempt are written down before it is sent, and the attempt
is completed as soon as it ends; else all of a call is written in one transaction at its end. What a
failed attempt may have been billed is spent: the next one has so much less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optllm_router.core.budgets import Verdict
from optllm_router.dispatch.entries import Entries
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.resuming import Place
from optllm_router.errors import BatchBusyError, BudgetExceededError, StoreError
from optllm_router.ledger import Cap
from optllm_router.records import Attempt, Decision
from optllm_router.store.base import BatchItem, Store

_BOUND = (
    "and a hard budget binds: no call was made, since money that cannot be accounted for is not "
    "spent. Repair the store, or lift the budget"
)
_UNBOUND = (
    "and the batch is to survive: no call was made, since what cannot be written down would be "
    "asked twice. Repair the store, or leave `batch_id` out"
)


class Books:
    """Keeps one call's money and log, one attempt after the other.

    Args:
        journal: where rows go.
        entries: what the decision's row is made from.
        caps: the hard budgets that bind the call.
        held_nusd: what the last of the caps has set aside already for the first attempt.
        place: keeps the answer, where it belongs to a batch that survives.
    """

    def __init__(
        self,
        journal: Journal,
        entries: Entries,
        caps: Sequence[Cap],
        *,
        held_nusd: int,
        place: Place | None,
    ) -> None:
        self.attempts: list[Attempt] = []
        self._journal = journal
        self._entries = entries
        self._caps = caps
        self._held_nusd = held_nusd
        self._place = place
        self._reserved: list[tuple[Cap, int]] = []
        self._is_open = False
        self._is_recorded = False

    @property
    def writes_ahead(self) -> bool:
        """Whether attempts are written down before they are sent."""
        return bool(self._caps) or self._place is not None

    @property
    def cost_nusd(self) -> int:
        """What the attempts that have ended cost, as far as their price is known."""
        return sum(attempt.cost_nusd or 0 for attempt in self.attempts)

    def reserve(self, worst_nusd: int | None) -> Verdict:
        """Set the worst case of the next attempt aside in every cap, or in none.

        Raises: BudgetExceededError for an unknown price, which no cap can bound.
        """
        for cap in self._caps:
            if worst_nusd is None:
                raise cap.unpriced_refusal(self._entries.decided.candidate.name)
            verdict = self._reserve_in(cap, worst_nusd)
            if verdict != "reserved":
                self.release()
                return verdict
            self._reserved.append((cap, worst_nusd))
        return "reserved"

    def refusal(self, worst_nusd: int) -> BudgetExceededError:
        """Build the error for an attempt that does not fit."""
        return min(self._caps, key=lambda cap: cap.balance.left_nusd).refusal(worst_nusd)

    def release(self) -> None:
        """Give back what is set aside for an attempt that is not made."""
        for cap, amount_nusd in self._reserved:
            cap.settle(amount_nusd, 0)
        self._reserved.clear()
        if self._held_nusd:
            self._caps[-1].settle(self._held_nusd, 0)
            self._held_nusd = 0

    def open(self, attempt: Attempt) -> None:
        """Write an attempt down that is about to be sent. Raises: StoreError."""
        decision, place = self._entries.decision(served=None), self._place
        item = None if place is None else place.claimed(decision.id)
        try:
            self._journal.write_ahead(_recording(decision, [attempt], item))
        except BatchBusyError:
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {_BOUND if self._caps else _UNBOUND}") from error
        self._is_open = self._is_recorded = True

    def hand_out(self, attempt: Attempt, *, served: str | None) -> None:
        """Write an attempt down whose stream is about to be handed out, where it is not yet."""
        if not self._is_open:
            self._record(served, [*self.attempts, attempt])
            self._is_open = True

    def settle(
        self, attempt: Attempt, *, served: str | None = None, item: BatchItem | None = None
    ) -> None:
        """Book what an attempt really cost, and complete its row where it is written already.

        A batch's `item` is written with it.
        """
        self.attempts.append(attempt)
        for cap, amount_nusd in self._reserved:
            cap.settle(amount_nusd, attempt.cost_nusd or 0)
        self._reserved.clear()
        if self._is_open:
            self._is_open = False
            self._journal.write(lambda store: store.settle(attempt, served=served, item=item))

    def settle_failed(self, attempt: Attempt, error: BaseException) -> None:
        """Do what `settle` does with an attempt that failed; its item may be asked again."""
        place = self._place
        item = None if place is None else place.failed(attempt.decision_id, error)
        self.settle(attempt, item=item)

    def close(self, *, served: str | None = None) -> None:
        """Write the decision with its attempts, where they are not written yet."""
        if self.attempts and not self._is_recorded:
            self._record(served, self.attempts)

    def _record(self, served: str | None, attempts: Sequence[Attempt]) -> None:
        self._is_recorded = True
        self._journal.write(_recording(self._entries.decision(served=served), list(attempts)))

    def _reserve_in(self, cap: Cap, worst_nusd: int) -> Verdict:
        if self._held_nusd and cap is self._caps[-1]:
            held_nusd, self._held_nusd = self._held_nusd, 0
            if held_nusd == worst_nusd:
                return "reserved"
            cap.settle(held_nusd, 0)
        return cap.reserve(worst_nusd)


def _recording(
    decision: Decision, attempts: Sequence[Attempt], item: BatchItem | None = None
) -> Callable[[Store], None]:
    return lambda store: store.record(decision, attempts, item=item)
