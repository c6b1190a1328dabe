"""Who of a call's columns may be asked now: what stands between an attempt and its being sent.

Before an attempt is sent it has waited its turn, the caps of this process have its worst case set
aside, its candidate's limits let it in and its circuit lets it pass. Last, the shared budgets
reserve for it: who has to wait for their money leaves the limits to others meanwhile. A column that
does not fit a budget makes room for the next one that does.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from optllm_router.dispatch.books import RESERVED, Books, Refusal
from optllm_router.dispatch.breaker import Breaker
from optllm_router.dispatch.course import Leg
from optllm_router.dispatch.effects import Await, Effect, Pause, Write
from optllm_router.dispatch.entries import Entries, Try
from optllm_router.dispatch.limits import Limit
from optllm_router.dispatch.outgoing import Outgoing
from optllm_router.dispatch.traffic import Traffic
from optllm_router.errors import BudgetExceededError
from optllm_router.ledger import Ticket
from optllm_router.records import AtCap
from optllm_router.store.shares import Reply

POLL_S = 0.004
ASK_AGAIN_S = 0.05  # how often the first of a line looks what other processes have settled
LONG_PAUSE_S = 1.0

Talk: TypeAlias = Generator[Effect, Any, Any]


class Admission:
    """Lets the attempts of one call out, one after the other; see the module's docstring.

    Attributes:
        this: the attempt that was let out last; unset before the first one.
        trial: the circuit that it tries, None where it was closed.
        awaited: the circuit whose trial it has to wait for, None for none.
        last: why the attempt before failed, or could not be made.
    """

    this: Try

    def __init__(
        self, traffic: Traffic, *, outgoing: Outgoing, entries: Entries, books: Books
    ) -> None:
        self.trial: Breaker | None = None
        self.awaited: Breaker | None = None
        self.last: Exception | None = None
        self._traffic = traffic
        self._outgoing = outgoing
        self._entries = entries
        self._books = books
        self._slot: Limit | None = None
        self._entry = object()  # what it entered the slot as
        self._is_opening = False
        self._refusal: Refusal | None = None  # of the cheapest column that did not fit
        self._at_caps: set[AtCap] = set()
        self._too_dear: list[Leg] = []  # those that did not fit, this time
        self._ticket: Ticket | None = None
        self._patient_until: float | None = None  # since it was told to wait for money

    @property
    def error(self) -> Exception | None:
        """Why nobody may be asked, as far as that is known."""
        if self.last is not None or self._refusal is None:
            return self.last
        return self._traffic.client.budget_error(self._refusal.error)

    def leave(self) -> None:
        """Free the slot of an attempt that is over."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.leave()

    def late(self, leg: Leg, why: str) -> Exception:
        """Return the error of a column that took too long."""
        return self._traffic.client.lost_error("timeout", leg.offer.candidate, why)

    def is_healthy(self, leg: Leg) -> bool:
        """Whether a column's circuit is not open."""
        return self._outgoing.is_as_given or not self._traffic.breaker(leg.offer.candidate).is_open

    def admitted(self, legs: Sequence[Leg]) -> Talk:
        """Return who may be asked now, healthy ones before others; None where nobody may."""
        healthy = [leg for leg in legs if self.is_healthy(leg)]
        for leg in healthy:
            if self._may_fit(leg) and (yield from self.prepared(leg, last_resort=False)):
                self._note_circuits([other for other in legs if other not in healthy])
                return leg
        for leg in legs:
            if self._may_fit(leg) and (yield from self.prepared(leg, last_resort=True)):
                return leg
        return None

    def begin_round(self) -> None:
        """Begin to look for whom to ask next: it may wait for money once more."""
        self._too_dear.clear()
        self._patient_until = None

    def _may_fit(self, leg: Leg) -> bool:
        """Whether a column may be asked, after what budgets have said of others."""
        if leg in self._too_dear:
            return False
        if "refuse" in self._at_caps:
            return False
        return "cheapest_free" not in self._at_caps or leg.offer.worst_nusd == 0

    def _note_circuits(self, ill: Sequence[Leg]) -> None:
        decided = self._entries.decided.candidate
        if any(leg.offer.candidate == decided and not leg.n_tries for leg in ill):
            self._entries.notes.append(f"{decided.name} is left alone, its circuit is open")

    def prepared(self, leg: Leg, *, last_resort: bool) -> Talk:
        """Wait for a column's turn, its money and its slot; return whether it may be sent now."""
        is_ready = False
        try:
            if (yield from self._in_time(leg)) and (yield from self._reserved(leg)):
                is_ready = yield from self._entered(leg, last_resort=last_resort)
        except BaseException as error:
            if self._is_opening:
                unsent = self._entries.failed(self.this, error, maybe_billed=False)
                yield Write(lambda: self._books.withdraw(replace(unsent, status="refused")))
            raise
        finally:
            if not is_ready:
                self._books.release()
                self._step_back()
        return is_ready

    def _step_back(self) -> None:
        """Leave a candidate's slot and trial to others, as if they had not been taken."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.step_back(self._entry)
        trial, self.trial = self.trial, None
        if trial is not None:
            trial.released()

    def _in_time(self, leg: Leg) -> Talk:
        """Wait until a column may be asked (again)."""
        wait_s = leg.ready_at - self._traffic.clock()
        if wait_s > 0:
            if not self._outgoing.has_time(wait_s):
                return False
            yield Pause(wait_s)
        return True

    def _reserved(self, leg: Leg) -> Talk:
        """Reserve a worst case in the caps, waiting where it fails only for calls in flight."""
        try:
            while (verdict := self._books.reserve(leg.offer)) == "wait":
                if not self._outgoing.has_time(POLL_S):
                    self.last = self.last or self.late(leg, "the budget was not free in time")
                    return False
                yield Pause(POLL_S)
        except BudgetExceededError as error:
            self.last = self.last or self._traffic.client.budget_error(error)
            return False
        if verdict == "refused":
            self._does_not_fit(leg, self._books.refusal(leg.offer))
        return verdict == "reserved"

    def _does_not_fit(self, leg: Leg, refusal: Refusal) -> None:
        """Take down that a budget has no room for a column."""
        self._too_dear.append(leg)
        self._at_caps.add(refusal.at_cap)
        if self._refusal is None:
            self._entries.notes.append(
                f"{leg.offer.candidate.name} does not fit the budget any more"
            )
        if self._refusal is None or refusal.needed_nusd < self._refusal.needed_nusd:
            self._refusal = refusal

    def _entered(self, leg: Leg, *, last_resort: bool) -> Talk:
        """Pass a candidate's limits and circuit, and have the shared budgets reserve for it."""
        try:
            while (yield from self._let_in(leg)) and self._passes(leg, last_resort=last_resort):
                reply: Reply = yield from self._opened(leg)
                if reply.verdict == "reserved":
                    return True
                self._step_back()
                if reply.verdict == "wait" and (yield from self._called(reply)):
                    continue
                self._does_not_fit(leg, self._books.refusal(leg.offer, reply))
                return False
            return False
        finally:
            self._leave_line()

    def _opened(self, leg: Leg) -> Talk:
        """Write the attempt down, where that is done before it is sent; return how that went."""
        self.this = this = Try(leg.offer, number=len(self._books.attempts))
        if not self._books.writes_ahead(leg.offer):
            return RESERVED
        self._is_opening = True
        reply = yield Write(lambda: self._books.open(leg.offer, self._entries.opened(this)))
        self._is_opening = False
        return reply

    def _called(self, reply: Reply) -> Talk:
        """Wait in line for money that others have reserved; return whether to ask again."""
        self._ticket = ticket = self._books.in_line(self._ticket, reply)
        if self._patient_until is None:
            self._patient_until = self._traffic.clock() + self._books.reserve_timeout_s
        while (left_s := self._left_s(self._patient_until)) > 0:
            is_first = self._books.is_first(ticket)
            yield Await(ticket.signal, min(left_s, ASK_AGAIN_S) if is_first else left_s)
            if self._books.is_first(ticket):
                ticket.renew()
                return True
        return False

    def _left_s(self, until: float) -> float:
        return min(until - self._traffic.clock(), self._outgoing.left_s)

    def _leave_line(self) -> None:
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._books.leave_line(ticket)

    def _let_in(self, leg: Leg) -> Talk:
        """Wait for a candidate's limits; who is in line for money leaves it to others meanwhile."""
        limit, self._entry = self._traffic.limit(leg.offer.candidate), object()
        while limit is not None and (wait_s := limit.enter(self._entry)) > 0:
            self._leave_line()
            if not self._outgoing.has_time(wait_s):
                self.last = self.last or self.late(leg, "its limits let no call in, in time")
                return False
            yield Pause(min(wait_s, LONG_PAUSE_S))
        self._slot = limit
        return True

    def _passes(self, leg: Leg, *, last_resort: bool) -> bool:
        """Whether a candidate's circuit lets the call pass, if need be after a wait."""
        if self._outgoing.is_as_given:
            return True
        breaker = self._traffic.breaker(leg.offer.candidate)
        admission = breaker.admit(last_resort=last_resort)
        self.trial = breaker if admission == "trial" else None
        self.awaited = breaker if admission == "wait" else None
        return admission != "elsewhere"
