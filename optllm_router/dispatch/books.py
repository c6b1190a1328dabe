"""The books of one call: each attempt's reserve and settle, and its rows, in one place.

An attempt reserves its worst case from every cap that binds the call in this process, then, as the
last thing before it is sent, from every shared budget that binds it: in the transaction that writes
the decision and the open attempt down. Where any hard budget binds, the attempt is completed as
soon as it ends; else all of a call is written in one transaction at its end. What a failed attempt
may have been billed is spent: the next one has so much less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optllm_router.core.budgets import Verdict
from optllm_router.dispatch.entries import Entries
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.money import Bounds
from optllm_router.dispatch.offers import Offer
from optllm_router.dispatch.resuming import Place
from optllm_router.errors import BatchBusyError, BudgetExceededError, StoreError
from optllm_router.ledger import Cap, Ticket, refusal, unpriced_refusal
from optllm_router.records import AtCap, Attempt, BudgetLine, Decision
from optllm_router.store.base import BatchItem, Store
from optllm_router.store.shares import Reply

_BOUND = (
    "and a hard budget binds: no call was made, since money that cannot be accounted for is not "
    "spent. Repair the store, or lift the budget"
)
_UNBOUND = (
    "and the batch is to survive: no call was made, since what cannot be written down would be "
    "asked twice. Repair the store, or leave `batch_id` out"
)

RESERVED = Reply("reserved")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A column whose worst case does not fit: the error to raise, and who may be asked instead."""

    error: BudgetExceededError
    at_cap: AtCap
    needed_nusd: int


class Books:
    """Keeps one call's money and log, one attempt after the other.

    Args:
        journal: where rows go.
        entries: what the decision's row is made from.
        bounds: the hard budgets that bind the call.
        held_nusd: what the last of the caps has set aside already for the first attempt.
        place: keeps the answer, where it belongs to a batch that survives.
    """

    def __init__(
        self,
        journal: Journal,
        entries: Entries,
        bounds: Bounds,
        *,
        held_nusd: int,
        place: Place | None,
    ) -> None:
        self.attempts: list[Attempt] = []
        self._journal = journal
        self._entries = entries
        self._bounds = bounds
        self._held_nusd = held_nusd
        self._place = place
        self._reserved: list[tuple[Cap, int]] = []
        self._lines: tuple[BudgetLine, ...] = ()
        self._opened: Attempt | None = None
        self._withdrawn: Attempt | None = None
        self._is_ahead = False
        self._unwritten: list[Attempt] = []
        self._is_recorded = False

    def writes_ahead(self, offer: Offer) -> bool:
        """Whether an attempt is written down before it is sent."""
        return self._is_recorded or self._place is not None or self._bounds.binds(offer.candidate)

    @property
    def is_open(self) -> bool:
        """Whether the attempt under way is written down."""
        return self._opened is not None

    @property
    def cost_nusd(self) -> int:
        """What the attempts that have ended cost, as far as their price is known."""
        return sum(attempt.cost_nusd or 0 for attempt in self.attempts)

    def reserve(self, offer: Offer) -> Verdict:
        """Set the worst case of the next attempt aside in every cap, or in none.

        Raises: BudgetExceededError for an unknown price, which no budget can bound.
        """
        worst_nusd = offer.worst_nusd
        self._check_priced(offer)
        for bound in self._bounds.caps:
            if worst_nusd is None or not bound.binds(offer.candidate):
                continue
            verdict = self._reserve_in(bound.cap, worst_nusd)
            if verdict != "reserved":
                self.release()
                return verdict
            self._reserved.append((bound.cap, worst_nusd))
        return "reserved"

    def refusal(self, offer: Offer, reply: Reply | None = None) -> Refusal:
        """Say why an attempt does not fit: for the shared budget of a reply, else for a cap."""
        needed = offer.worst_nusd or 0
        if reply is not None and reply.standing is not None:
            at_cap = self._bounds.at_cap(reply.standing.name)
            return Refusal(refusal(reply.standing, needed), at_cap, needed)
        binding = [bound for bound in self._bounds.caps if bound.binds(offer.candidate)]
        tight = min(binding, key=lambda bound: bound.cap.balance.left_nusd)
        return Refusal(tight.cap.refusal(needed), tight.at_cap, needed)

    @property
    def reserve_timeout_s(self) -> float:
        """How long an attempt waits for money that others have reserved."""
        return self._bounds.money.reserve_timeout_s

    def in_line(self, ticket: Ticket | None, reply: Reply) -> Ticket:
        """Go to the end of the line of the budget that a reply names, unless already there."""
        standing = reply.standing
        place = ("", "") if standing is None else (standing.name, standing.window.key)
        if ticket is not None and ticket.place == place:
            return ticket
        if ticket is not None:
            self.leave_line(ticket)
        return self._bounds.money.turns.join(place)

    def is_first(self, ticket: Ticket) -> bool:
        """Whether a call is the one of its line that asks."""
        return self._bounds.money.turns.is_first(ticket)

    def leave_line(self, ticket: Ticket) -> None:
        """Leave a line."""
        self._bounds.money.turns.leave(ticket)

    def release(self) -> None:
        """Give back what caps have set aside for an attempt that is not made."""
        for cap, amount_nusd in self._reserved:
            cap.settle(amount_nusd, 0)
        self._reserved.clear()
        if self._held_nusd:
            self._bounds.caps[-1].cap.settle(self._held_nusd, 0)
            self._held_nusd = 0

    def open(self, offer: Offer, attempt: Attempt) -> Reply:
        """Write down an attempt that is about to be sent, where it fits every shared budget.

        Returns: "reserved", or the budget that it does not fit; nothing is written then.

        Raises: StoreError.
        """
        lines = self._bounds.lines(offer)
        try:
            reply = self._written_ahead(offer, attempt, lines)
        except BatchBusyError:
            raise
        except StoreError as error:
            is_bound = self._bounds.binds(offer.candidate)
            raise StoreError(f"{error}; {_BOUND if is_bound else _UNBOUND}") from error
        if reply.verdict == "reserved":
            self._opened, self._lines = attempt, lines
            self._is_ahead = self._is_recorded = True
            if self._withdrawn is not None:  # its caller is gone
                self.settle(self._withdrawn)
        return reply

    def withdraw(self, attempt: Attempt) -> None:
        """Complete an attempt that is never sent, now or as soon as another thread has opened it.

        Where both see it at once it is completed twice, which changes nothing.
        """
        self._withdrawn = attempt
        if self._opened is not None:
            self.settle(attempt)

    def hand_out(self, attempt: Attempt, *, served: str | None) -> None:
        """Write an attempt down whose stream is about to be handed out, where it is not yet."""
        if self._opened is None:
            self._record(served, [*self._unwritten, attempt])
            self._opened = attempt

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
        if self._opened is None:
            self._unwritten.append(attempt)
            return
        self._opened = None
        reason, propensity = self._entries.reason(served), self._entries.propensity(served)
        self._journal.write(
            lambda store: store.settle(
                attempt,
                served=served,
                item=item,
                reason=reason,
                propensity=propensity,
            ),
            is_ahead=self._is_ahead,
        )
        self._bounds.money.turns.settled([line.name for line in self._lines])

    def settle_failed(self, attempt: Attempt, error: BaseException) -> None:
        """Do what `settle` does with an attempt that failed; its item may be asked again."""
        place = self._place
        item = None if place is None else place.failed(attempt.decision_id, error)
        self.settle(attempt, item=item)

    def close(self, *, served: str | None = None) -> None:
        """Write the decision with its attempts, as far as they are not written yet."""
        if self._unwritten:
            self._record(served, self._unwritten)

    def _written_ahead(self, offer: Offer, attempt: Attempt, lines: Sequence[BudgetLine]) -> Reply:
        decision, place = self._entries.decision(served=None), self._place
        item = None if place is None else place.claimed(decision.id)
        if not lines:
            self._journal.write_ahead(_recording(decision, [attempt], item))
            return RESERVED
        worst_nusd = offer.worst_nusd or 0
        return self._journal.write_ahead(
            lambda _store: self._bounds.money.ledger.reserve(
                decision,
                attempt,
                lines=lines,
                amount_nusd=worst_nusd,
                forecast_nusd=min(attempt.cost_nusd or 0, worst_nusd),
                item=item,
            )
        )

    def _check_priced(self, offer: Offer) -> None:
        if offer.worst_nusd is not None:
            return
        name = offer.candidate.name
        for bound in self._bounds.caps:
            if bound.binds(offer.candidate):
                raise bound.cap.unpriced_refusal(name)
        for line in self._bounds.lines(offer):
            raise unpriced_refusal(line, name)

    def _record(self, served: str | None, attempts: Sequence[Attempt]) -> None:
        decision, attempts = self._entries.decision(served=served), list(attempts)
        self._is_recorded = True
        self._unwritten = []
        self._journal.write(_recording(decision, attempts))

    def _reserve_in(self, cap: Cap, worst_nusd: int) -> Verdict:
        if self._held_nusd and cap is self._bounds.caps[-1].cap:
            held_nusd, self._held_nusd = self._held_nusd, 0
            if held_nusd == worst_nusd:
                return "reserved"
            cap.settle(held_nusd, 0)
        return cap.reserve(worst_nusd)


def _recording(
    decision: Decision, attempts: Sequence[Attempt], item: BatchItem | None = None
) -> Callable[[Store], None]:
    return lambda store: store.record(decision, attempts, item=item)
