"""One call, start to end: decide, ask, bill, log, grade, annotate.

The order is the promise: what was answered is on disk before the caller has it (decision and
attempts in one transaction); of a stream, and of a call that spends of a hard budget, the decision
and an open attempt are on disk before the first chunk or before the call, and the attempt is
completed when it ends, however it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from optllm_router.completion.base import Answer, Client, Response
from optllm_router.core.policy import Policy
from optllm_router.dispatch.attempts import Answered, Attempts
from optllm_router.dispatch.billing import bill
from optllm_router.dispatch.books import Books
from optllm_router.dispatch.deciding import Decided, Decider, RouterState
from optllm_router.dispatch.effects import Conversation, Write
from optllm_router.dispatch.entries import Entries, Try
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.money import BoundCap, Bounds, Money, in_batch
from optllm_router.dispatch.notes import annotate, attach
from optllm_router.dispatch.outgoing import Outgoing
from optllm_router.dispatch.policies import effective_policy
from optllm_router.dispatch.requests import Request, check_bound
from optllm_router.dispatch.resuming import Place
from optllm_router.dispatch.streams import End, RoutedStream
from optllm_router.dispatch.traffic import Traffic
from optllm_router.errors import BudgetExceededError
from optllm_router.grading import Grader, Graders, check_reference
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Attempt, CapLine, Outcome
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.base import BatchItem

logger = logging.getLogger("optllm_router")


@dataclass(frozen=True, slots=True)
class Task:
    """One call within a router: the request, and what a batch or a probe adds to it.

    `decided` is given when a batch has decided already, and has reserved `held_nusd` of its `cap`;
    a call that is decided here reserves from it, too. `policy` is the batch's own, `caps` are those
    that `[[budgets]]` set for a batch (None outside of one). `on_cost` is told what the call cost
    in nano-USD, once, whatever happens. `grader` replaces the task's own; `on_score` is told the
    candidate and its score, once it is graded. `place` keeps the answer of an item whose batch
    survives its process.
    """

    request: Request
    decided: Decided | None = None
    batch_id: str | None = None
    on_cost: Callable[[int], None] | None = None
    policy: Policy | None = None
    cap: Cap | None = None
    caps: Sequence[tuple[CapLine, Cap]] | None = None
    held_nusd: int = 0
    grader: Grader | None = None
    on_score: Callable[[str, float], None] | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Desk:
    """What every call of a router works with."""

    client: Client
    journal: Journal
    writer: BackgroundWriter
    decider: Decider
    graders: Graders
    traffic: Traffic
    money: Money

    def converse(self, state: RouterState, task: Task) -> Conversation:
        """Hold the conversation of one call; see `effects`."""
        decided, bounds = task.decided, self._bounds(state, task)
        if decided is None:
            if bounds.may_bind:
                check_bound(task.request)
            try:
                decided = self.decider.decide(state, task.request, task.policy)
            except BudgetExceededError as error:
                raise self.client.budget_error(error) from None
        call = _Call(self, state, task, decided, bounds)
        try:
            if task.decided is not None and bounds.may_bind:
                check_bound(task.request)
            check_reference(call.grader, task.request.reference)
            return (yield from call.converse())
        finally:
            call.end()

    def _bounds(self, state: RouterState, task: Task) -> Bounds:
        """The hard budgets that bind a call; a probe is asked for beside any policy."""
        request, policies = task.request, (state.policy, task.policy, task.request.policy)
        caps = self.money.caps_of_call(request, is_alone=task.caps is None)
        caps += in_batch(task.caps or (), request)
        if task.decided is not None and task.decided.kind == "probe":
            return self.money.bounds(request, (), caps)
        _, limit_nusd = effective_policy(*policies)
        caps += [] if limit_nusd is None else [BoundCap(Cap("call", limit_nusd))]
        caps += [] if task.cap is None else [BoundCap(task.cap)]
        return self.money.bounds(request, policies, caps)

    def later(self, action: Callable[[], object]) -> None:
        """Do something on the writer's thread."""
        self.writer.write(lambda _store: action())


class _Call:
    """The state of one call while it lasts."""

    def __init__(
        self, desk: Desk, state: RouterState, task: Task, decided: Decided, bounds: Bounds
    ) -> None:
        self.desk = desk
        self.task = task
        self.decided = decided
        self.entries = Entries(state, task.request, decided, task.batch_id)
        self.books = Books(
            desk.journal,
            self.entries,
            bounds,
            held_nusd=task.held_nusd,
            place=task.place,
        )
        traffic = desk.traffic
        outgoing = Outgoing(
            task.request,
            decided.kind,
            is_bound=bounds.binds,
            calls=traffic.calls,
            clock=traffic.clock,
        )
        if task.batch_id is None:
            outgoing.start()
        self.attempts = Attempts(
            traffic,
            desk.decider,
            outgoing=outgoing,
            entries=self.entries,
            books=self.books,
        )
        self.grader = task.grader or desk.graders.for_task(task.request.query.task)
        self.untold = [True]
        self.is_streaming = False
        self._is_concluding = False

    def converse(self) -> Conversation:
        try:
            return (yield from self._held())
        except BaseException as error:
            if self.books.is_open and not self._is_concluding and not self.is_streaming:
                cut_off = error
                yield Write(lambda: self._cut_off(cut_off))
            raise

    def _held(self) -> Conversation:
        try:
            answered: Answered = yield from self.attempts.run()
        except BaseException as error:
            if self.books.attempts:
                attach(error, tuple(self.books.attempts))
                yield Write(self.books.close)
            raise
        if self.task.request.stream:
            return (yield from self._streaming(answered))
        return (yield from self._answered(answered.this, answered.response))

    def _cut_off(self, error: BaseException) -> None:
        """Book an attempt that something came between: an interrupt, or a fault of ours."""
        if self.books.is_open:
            self.books.settle_failed(self.attempts.cut_off(error), error)

    def end(self) -> None:
        """Free what is held, and tell a batch or a probe what the call cost, once."""
        if self.is_streaming:
            return
        self.attempts.leave()
        self.books.release()
        self._tell()

    def _tell(self) -> None:
        try:
            self.untold.pop()
        except IndexError:
            return
        if self.task.on_cost is not None:
            self.task.on_cost(self.books.cost_nusd)

    def _answered(self, this: Try, response: Response) -> Conversation:
        self.attempts.leave()
        answer = self._read(this, response)
        billed = bill(self.desk.client, this.offer.candidate, self.task.request.query, answer)
        attempt = self.entries.attempt(this, "ok", billed, answer=answer)
        facts, place = self._facts(this, billed.cost_nusd), self.task.place
        item = None if place is None else place.answered(self.desk.client, response, facts)
        self._is_concluding = True
        yield Write(lambda: self._conclude(attempt, item))
        annotate(response, facts)
        self._grade(this, answer.text, response)
        return response

    def _read(self, this: Try, response: Response) -> Answer:
        """Read an answer; one that we cannot read is the caller's all the same."""
        try:
            return self.desk.client.describe(response)
        except Exception:
            self.desk.decider.n_faults += 1
            logger.exception("an answer of %s is billed unread", this.offer.candidate.name)
            return Answer(text="", usage=None, response_id=None)

    def _streaming(self, answered: Answered) -> Conversation:
        this, opening = answered.this, answered.response

        def finish(end: End) -> None:
            self._finish(this, end)

        stream = RoutedStream(opening, finish, self.desk.later)
        try:
            opened = self.entries.opened(this)
            if not self.books.is_open:
                served = self._served(this)
                yield Write(lambda: self.books.hand_out(opened, served=served))
        except BaseException:  # its caller will never have it
            yield Write(stream.abandon)
            raise
        self.is_streaming = True
        annotate(opening.stream, self._facts(this, None))
        return stream

    def _finish(self, this: Try, end: End) -> None:
        """Complete a stream's attempt: billed by its usage, or by counting what arrived."""
        self.attempts.leave()
        client, query, answer = self.desk.client, self.task.request.query, end.answer
        billed = bill(client, this.offer.candidate, query, answer)
        attempt = replace(
            self.entries.attempt(this, end.status, billed, answer=answer),
            **self.entries.error_facts(this, end.error),
        )
        error = end.error
        if error is not None and not answer.text and not self._may_have_cost(error):
            attempt = replace(attempt, cost_nusd=0, estimated=False)
        self._conclude(attempt)
        if error is not None:
            attach(error, tuple(self.books.attempts))
        if end.status == "ok":
            self._grade(this, answer.text, None)

    def _may_have_cost(self, error: BaseException) -> bool:
        return not isinstance(error, Exception) or self.desk.client.maybe_billed(error)

    def _conclude(self, attempt: Attempt, item: BatchItem | None = None) -> None:
        """Write how the last attempt went, keep a batch's answer with it, and book its cost."""
        served = None
        if attempt.status != "error" and not self.task.request.may_reroute:
            served = attempt.candidate
        self.books.settle(attempt, served=served, item=item)
        self.books.close(served=served)
        self._tell()

    def _served(self, this: Try) -> str | None:
        """Who answers; unknown where LiteLLM may ask another model."""
        return None if self.task.request.may_reroute else this.offer.candidate.name

    def _grade(self, this: Try, text: str, response: Response) -> None:
        """Grade in the background, where the task has a grader."""
        task, decision_id = self.task, self.entries.decision_id
        candidate = this.offer.candidate.name
        origin = "probe" if self.decided.kind == "probe" else "grader"
        grader = self.grader
        if grader is None:
            return

        def grade() -> list[Outcome]:
            score = grader.grade(text, task.request.reference, response=response)
            if score is None:
                return []
            if task.on_score is not None:
                task.on_score(candidate, score)
            return [
                Outcome(
                    decision_id=decision_id,
                    score=score,
                    source=f"{origin}:{grader.name}",
                    created_at=datetime.now(tz=UTC),
                )
            ]

        self.desk.writer.submit(grade)

    def _facts(self, this: Try, cost_nusd: int | None) -> dict[str, object]:
        """What the answer says of itself; `cost_usd` adds its own cost to that of failed attempts.

        It is None where the answer's own is not known, or not yet.
        """
        decided = self.decided
        total = None if cost_nusd is None else self.books.cost_nusd + cost_nusd
        expected = decided.expected_cost_nusd
        served = this.offer.candidate.name
        return {
            "decision_id": self.entries.decision_id,
            "candidate": served,
            "chosen": decided.chosen,
            "expected_accuracy": decided.expected_accuracy,
            "expected_cost_usd": None if expected is None else expected / NANO_PER_USD,
            "cost_usd": None if total is None else total / NANO_PER_USD,
            "propensity": decided.propensity,
            "policy": decided.policy,
            "predictor_version": decided.predictor_version,
            "reason": self.entries.reason(served),
        }
