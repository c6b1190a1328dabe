"""The attempts of one call: who may be asked now, asking, and what is done about a failure.

Before an attempt is sent it has waited its turn, its worst case is reserved, its candidate's limits
let it in and its circuit lets it pass, in this order: nobody who waits for money holds up anybody
else. A stream is asked until its answer has begun; up to there a failure costs its caller nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from optllm_router.completion.base import Failure, Response
from optllm_router.dispatch.billing import bill
from optllm_router.dispatch.books import Books
from optllm_router.dispatch.breaker import Breaker, twin
from optllm_router.dispatch.course import Course, Leg
from optllm_router.dispatch.deciding import Decider
from optllm_router.dispatch.effects import Effect, Pause, Pull, Send, Write
from optllm_router.dispatch.entries import Entries, Try
from optllm_router.dispatch.limits import LOOK_S, Limit
from optllm_router.dispatch.outgoing import Outgoing
from optllm_router.dispatch.streams import ENDED, Opening
from optllm_router.dispatch.traffic import Traffic
from optllm_router.dispatch.watch import Overdue, Watch
from optllm_router.errors import BudgetExceededError, StoreError
from optllm_router.records import Attempt

logger = logging.getLogger("optllm_router")

POLL_S = 0.004
LONG_PAUSE_S = 1.0

Talk: TypeAlias = Generator[Effect, Any, Any]
NOBODY = Failure(remedy="none")


@dataclass(frozen=True, slots=True)
class Answered:
    """The attempt that was answered, and its response, or its stream as far as it was read."""

    this: Try
    response: Response | Opening


class Attempts:
    """Makes the attempts of one call until one is answered; see the module's docstring."""

    def __init__(
        self,
        traffic: Traffic,
        decider: Decider,
        *,
        outgoing: Outgoing,
        entries: Entries,
        books: Books,
    ) -> None:
        self._client = traffic.client
        self._decider = decider
        self._traffic = traffic
        self._outgoing = outgoing
        self._entries = entries
        self._books = books
        self._course = Course(
            entries.decided.first,
            entries.decided.others,
            max_attempts=1 if outgoing.is_as_given else traffic.calls.max_attempts,
            may_retry=outgoing.may_retry,
            rng=traffic.rng,
        )
        self._last: Exception | None = None  # why nobody else could be asked
        self._slot: Limit | None = None
        self._trial: Breaker | None = None
        self._awaited: Breaker | None = None
        self._is_sent = False
        self._shared: Failure | None = None  # of a trial that this call has waited for
        self._bill_of_nothing: Attempt | None = None

    def run(self) -> Generator[Effect, Any, Answered]:
        """Return the answered attempt.

        Raises: BudgetExceededError before the first attempt; the last one's exception.
        """
        leg = yield from self._start()
        while True:
            this = Try(leg.offer, number=len(self._books.attempts))
            try:
                response = yield from self._ask(leg, this)
            except BaseException as error:
                following = yield from self._after(leg, this, error)
                if following is None:
                    raise
                leg = following
            else:
                self._healthy(leg)
                return Answered(this, response)

    def leave(self) -> None:
        """Free the slot of an attempt that is over."""
        slot, self._slot = self._slot, None
        if slot is not None:
            slot.leave()

    # -- who may be asked -------------------------------------------------------------------

    def _start(self) -> Talk:
        """Return who is asked first: the policy's column, unless something is against it."""
        first = self._course.first
        if self._is_healthy(first) and (yield from self._prepared(first, last_resort=False)):
            return first
        leg = yield from self._admitted(self._course.legs())
        if leg is None:
            self._refuse(first)
        return leg

    def _refuse(self, first: Leg) -> None:
        """Raise why nobody may be asked; what is no refusal of a budget is logged."""
        error = self._last or self._late(first, "nobody could be asked in time")
        if not isinstance(error, BudgetExceededError):
            failed = self._entries.failed(Try(first.offer, number=0), error, maybe_billed=False)
            self._books.settle(replace(failed, status="refused"))
        raise error

    def _is_healthy(self, leg: Leg) -> bool:
        return self._outgoing.is_as_given or not self._traffic.breaker(leg.offer.candidate).is_open

    def _admitted(self, legs: Sequence[Leg]) -> Talk:
        """Return who may be asked now, healthy ones before others; None where nobody may."""
        healthy = [leg for leg in legs if self._is_healthy(leg)]
        for leg in healthy:
            if (yield from self._prepared(leg, last_resort=False)):
                self._note_circuits([other for other in legs if other not in healthy])
                return leg
        for leg in legs:
            if (yield from self._prepared(leg, last_resort=True)):
                return leg
        return None

    def _note_circuits(self, ill: Sequence[Leg]) -> None:
        if self._course.first in ill and not self._course.first.n_tries:
            name = self._course.first.offer.candidate.name
            self._entries.notes.append(f"{name} is left alone, its circuit is open")

    def _prepared(self, leg: Leg, *, last_resort: bool) -> Talk:
        """Wait for a column's turn, its money and its slot; return whether it may be asked."""
        is_ready = False
        try:
            wait_s = leg.ready_at - self._traffic.clock()
            if wait_s > 0:
                if not self._outgoing.has_time(wait_s):
                    return False
                yield Pause(wait_s)
            if (yield from self._reserved(leg)) and (yield from self._let_in(leg)):
                is_ready = self._passes(leg, last_resort=last_resort)
        finally:
            if not is_ready:
                self._books.release()
                self.leave()
        return is_ready

    def _reserved(self, leg: Leg) -> Talk:
        """Reserve a worst case, waiting for calls in flight where it fails only for them."""
        try:
            while (verdict := self._books.reserve(leg.offer.worst_nusd)) == "wait":
                if not self._outgoing.has_time(POLL_S):
                    self._last = self._last or self._late(leg, "the budget was not free in time")
                    return False
                yield Pause(POLL_S)
            if verdict == "refused":
                raise self._books.refusal(leg.offer.worst_nusd or 0)
        except BudgetExceededError as error:
            if self._last is None:
                self._last = self._client.budget_error(error)
                self._entries.notes.append(
                    f"{leg.offer.candidate.name} does not fit the budget any more"
                )
            return False
        return True

    def _let_in(self, leg: Leg) -> Talk:
        """Wait for a candidate's limits."""
        limit = self._traffic.limit(leg.offer.candidate)
        while limit is not None and (wait_s := limit.enter()) > 0:
            if not self._outgoing.has_time(wait_s):
                self._last = self._last or self._late(leg, "its limits let no call in, in time")
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
        self._trial = breaker if admission == "trial" else None
        self._awaited = breaker if admission == "wait" else None
        return admission != "elsewhere"

    # -- asking -----------------------------------------------------------------------------

    def _ask(self, leg: Leg, this: Try) -> Talk:
        """Send, and read a stream until its answer has begun. Raises: what went wrong."""
        self._is_sent, self._shared, self._bill_of_nothing = False, None, None
        if self._awaited is not None:
            yield from self._await_trial(leg, self._awaited)
        if self._books.writes_ahead:
            yield Write(lambda: self._books.open(self._entries.opened(this)))
        watch, arguments = self._outgoing.prepare(leg.offer)
        self._is_sent = True
        try:
            response = yield Send(leg.offer.candidate, arguments, watch)
            if self._entries.request.stream:
                return (yield from self._open(leg, this, response, watch))
        except Overdue:
            raise self._late(leg, "it took longer than an attempt may") from None
        self._check(leg, this, response)
        return response

    def _await_trial(self, leg: Leg, breaker: Breaker) -> Talk:
        """Wait for what becomes of somebody else's trial, and share its error if it fails."""
        n_lost = breaker.n_lost_trials
        while (admission := breaker.admit(last_resort=True)) == "wait":
            if not self._outgoing.has_time(LOOK_S):
                raise self._late(leg, "its circuit is open, and nobody has been answered")
            yield Pause(LOOK_S)
            last = breaker.last
            if breaker.n_lost_trials != n_lost and last is not None:
                self._shared = last[1]
                raise twin(last[0])
        self._trial = breaker if admission == "trial" else None

    def _open(self, leg: Leg, this: Try, stream: Response, watch: Watch | None) -> Talk:
        meter = self._client.meter(self._entries.request.arguments)
        opening = Opening(
            stream=stream,
            meter=meter,
            chunks=[],
            watch=watch,
            overdue=lambda: self._late(leg, "the next chunk took longer than it may"),
        )
        if self._outgoing.is_as_given:
            return opening
        chunk = None
        while not meter.has_begun and chunk is not ENDED:
            chunk = yield Pull(stream, watch)
            if chunk is ENDED or meter.add(chunk):
                opening.chunks.append(chunk)
        if not meter.answer().text:
            self._check(leg, this, stream)
        if watch is not None:
            watch.allow(self._outgoing.left_s)
        return opening

    def _check(self, leg: Leg, this: Try, response: Response) -> None:
        """Refuse a response without an answer; what it was billed is known where it says so."""
        if self._outgoing.is_as_given or not self._client.is_empty(response):
            return
        if not self._entries.request.stream:
            answer = self._client.describe(response)
            billed = bill(self._client, leg.offer.candidate, self._entries.request.query, answer)
            self._bill_of_nothing = self._entries.attempt(
                this, "error", billed, response_id=answer.response_id
            )
        raise self._client.lost_error("empty", leg.offer.candidate, "the answer has no choices")

    def _late(self, leg: Leg, why: str) -> Exception:
        return self._client.lost_error("timeout", leg.offer.candidate, why)

    # -- what is done about a failure -------------------------------------------------------

    def _after(self, leg: Leg, this: Try, error: BaseException) -> Talk:
        """Book a failed attempt; return who is asked next, None where nobody is.

        Raises: the error before this one, where this one is that the log went down meanwhile.
        """
        failure = self._judged(error)
        self._tell_breaker(leg, this, error, failure)
        self.leave()
        if isinstance(error, StoreError) and not self._is_sent:
            self._books.release()
            return self._without_log(error)
        attempt = self._failed(this, error)
        self._entries.notes.append(f"{attempt.candidate} failed: {type(error).__name__}")
        if self._books.writes_ahead:
            yield Write(lambda: self._books.settle_failed(attempt, error))
        else:
            self._books.settle_failed(attempt, error)
        if not isinstance(error, Exception):
            return None
        self._last = error
        return (yield from self._admitted(self._following(leg, failure)))

    def _without_log(self, error: StoreError) -> None:
        if isinstance(self._last, Exception):
            logger.warning("nobody else is asked: %s", error)
            raise self._last

    def _following(self, leg: Leg, failure: Failure) -> list[Leg]:
        """Who may be asked next; a fault in finding out costs nobody the provider's own error."""
        try:
            return self._course.after(leg, failure, self._traffic.clock())
        except Exception:
            self._decider.n_faults += 1
            logger.exception("the router could not tell who else to ask")
            return []

    def _judged(self, error: BaseException) -> Failure:
        if self._shared is not None:
            return self._shared
        return self._client.judge(error) if isinstance(error, Exception) else NOBODY

    def _failed(self, this: Try, error: BaseException) -> Attempt:
        """The row of a failed attempt; "refused" where an open circuit kept it from being sent."""
        if self._bill_of_nothing is not None:
            facts = self._entries.error_facts(this, error)
            return replace(self._bill_of_nothing, **facts)
        attempt = self._entries.failed(this, error, maybe_billed=self._may_have_cost(error))
        return attempt if self._shared is None else replace(attempt, status="refused")

    def _may_have_cost(self, error: BaseException) -> bool:
        is_ours = isinstance(error, Exception)
        return self._is_sent and (not is_ours or self._client.maybe_billed(error))

    def _healthy(self, leg: Leg) -> None:
        self._trial = None
        if not self._outgoing.is_as_given:
            self._traffic.breaker(leg.offer.candidate).succeeded()

    def _tell_breaker(self, leg: Leg, this: Try, error: BaseException, failure: Failure) -> None:
        """Count a failure against its candidate, unless its caller was merely in a hurry."""
        trial, self._trial = self._trial, None
        if self._outgoing.is_as_given:
            return
        is_ill = self._is_sent and failure.is_ill
        if is_ill and not self._outgoing.was_in_a_hurry(leg.offer, this.elapsed_s):
            breaker = self._traffic.breaker(leg.offer.candidate)
            breaker.failed(error, failure, trial=trial is not None)
        elif trial is not None:
            trial.released()
