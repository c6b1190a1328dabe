"""The attempts of one call: asking one candidate after the other, and what is done about a failure.

Who may be asked now stands in `admission`. A stream is asked until its answer has begun; up to
there a failure costs its caller nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

from optllm_router.completion.base import Failure, Response
from optllm_router.dispatch.admission import Admission, Talk
from optllm_router.dispatch.billing import bill
from optllm_router.dispatch.books import Books
from optllm_router.dispatch.breaker import Breaker, twin
from optllm_router.dispatch.course import Course, Leg
from optllm_router.dispatch.deciding import Decider
from optllm_router.dispatch.effects import Effect, Pause, Pull, Send, Write
from optllm_router.dispatch.entries import Entries, Try
from optllm_router.dispatch.limits import LOOK_S
from optllm_router.dispatch.outgoing import Outgoing
from optllm_router.dispatch.streams import ENDED, Opening
from optllm_router.dispatch.traffic import Traffic
from optllm_router.dispatch.watch import Overdue, Watch
from optllm_router.errors import BudgetExceededError, StoreError
from optllm_router.records import Attempt

logger = logging.getLogger("optllm_router")

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
        self._door = Admission(traffic, outgoing=outgoing, entries=entries, books=books)
        self._is_sent = False
        self._shared: Failure | None = None  # of a trial that this call has waited for
        self._bill_of_nothing: Attempt | None = None

    def run(self) -> Generator[Effect, Any, Answered]:
        """Return the answered attempt.

        Raises: BudgetExceededError before the first attempt; the last one's exception.
        """
        leg = yield from self._start()
        while True:
            this = self._door.this
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
        self._door.leave()

    def cut_off(self, error: BaseException) -> Attempt:
        """Return the row of an attempt of which nobody knows how it would have ended."""
        return self._entries.failed(self._door.this, error, maybe_billed=self._is_sent)

    def _start(self) -> Talk:
        """Return who is asked first: the policy's column, unless something is against it."""
        first, door = self._course.first, self._door
        door.begin_round()
        if door.is_healthy(first) and (yield from door.prepared(first, last_resort=False)):
            return first
        leg = yield from door.admitted(self._course.legs())
        if leg is None:
            self._refuse(first)
        return leg

    def _refuse(self, first: Leg) -> None:
        """Raise why nobody may be asked; what is no refusal of a budget is logged."""
        error = self._door.error or self._door.late(first, "nobody could be asked in time")
        if not isinstance(error, BudgetExceededError):
            failed = self._entries.failed(Try(first.offer, number=0), error, maybe_billed=False)
            self._books.settle(replace(failed, status="refused"))
        raise error

    # -- asking -----------------------------------------------------------------------------

    def _ask(self, leg: Leg, this: Try) -> Talk:
        """Send, and read a stream until its answer has begun. Raises: what went wrong."""
        self._is_sent, self._shared, self._bill_of_nothing = False, None, None
        if self._door.awaited is not None:
            yield from self._await_trial(leg, self._door.awaited)
        watch, arguments = self._outgoing.prepare(leg.offer)
        self._is_sent = True
        try:
            response = yield Send(leg.offer.candidate, arguments, watch)
            if self._entries.request.stream:
                return (yield from self._open(leg, this, response, watch))
        except Overdue:
            raise self._door.late(leg, "it took longer than an attempt may") from None
        self._check(leg, this, response)
        return response

    def _await_trial(self, leg: Leg, breaker: Breaker) -> Talk:
        """Wait for what becomes of somebody else's trial, and share its error if it fails."""
        n_lost = breaker.n_lost_trials
        while (admission := breaker.admit(last_resort=True)) == "wait":
            if not self._outgoing.has_time(LOOK_S):
                raise self._door.late(leg, "its circuit is open, and nobody has been answered")
            yield Pause(LOOK_S)
            last = breaker.last
            if breaker.n_lost_trials != n_lost and last is not None:
                self._shared = last[1]
                raise twin(last[0])
        self._door.trial = breaker if admission == "trial" else None

    def _open(self, leg: Leg, this: Try, stream: Response, watch: Watch | None) -> Talk:
        meter = self._client.meter(self._entries.request.arguments, stream)
        opening = Opening(
            stream=stream,
            meter=meter,
            chunks=[],
            watch=watch,
            overdue=lambda: self._door.late(leg, "the next chunk took longer than it may"),
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
            self._bill_of_nothing = self._entries.attempt(this, "error", billed, answer=answer)
        raise self._client.lost_error("empty", leg.offer.candidate, "the answer has no choices")

    # -- what is done about a failure -------------------------------------------------------

    def _after(self, leg: Leg, this: Try, error: BaseException) -> Talk:
        """Book a failed attempt; return who is asked next, None where nobody is.

        Nobody is where the log went down meanwhile.
        """
        failure = self._judged(error)
        self._tell_breaker(leg, this, error, failure)
        self.leave()
        attempt = self._failed(this, error)
        self._entries.notes.append(f"{attempt.candidate} failed: {type(error).__name__}")
        if self._books.writes_ahead(leg.offer):
            yield Write(lambda: self._books.settle_failed(attempt, error))
        else:
            self._books.settle_failed(attempt, error)
        if not isinstance(error, Exception):
            return None
        self._door.last = error
        self._door.begin_round()
        try:
            return (yield from self._door.admitted(self._following(leg, failure)))
        except StoreError as lost:
            logger.warning("nobody else is asked: %s", lost)
            return None

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
        self._door.trial = None
        if not self._outgoing.is_as_given:
            self._traffic.breaker(leg.offer.candidate).succeeded()

    def _tell_breaker(self, leg: Leg, this: Try, error: BaseException, failure: Failure) -> None:
        """Count a failure against its candidate, unless its caller was merely in a hurry."""
        trial, self._door.trial = self._door.trial, None
        if self._outgoing.is_as_given:
            return
        is_ill = self._is_sent and failure.is_ill
        if is_ill and not self._outgoing.was_in_a_hurry(leg.offer, this.elapsed_s):
            breaker = self._traffic.breaker(leg.offer.candidate)
            breaker.failed(error, failure, trial=trial is not None)
        elif trial is not None:
            trial.released()
