"""One call, start to end: decide, send, bill, log, grade, annotate.

The order is the promise: what was answered is on disk before the caller has it (decision and
attempts in one transaction); of a stream, and of a call that spends of a hard budget, the decision
and an open attempt are on disk before the first chunk or before the call, and the attempt is
completed when it ends, however it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from optllm_router.completion.base import Answer, Client, Response
from optllm_router.core.cost import RETRIES, output_limit
from optllm_router.core.policy import Policy
from optllm_router.dispatch.billing import Bill, bill
from optllm_router.dispatch.deciding import Decided, Decider, RouterState
from optllm_router.dispatch.effects import Conversation, Effect, Pause, Send, Write
from optllm_router.dispatch.entries import Entries
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.notes import annotate, attach
from optllm_router.dispatch.policies import is_capped
from optllm_router.dispatch.requests import Request, check_bound
from optllm_router.dispatch.resuming import Place
from optllm_router.dispatch.streams import End, RoutedStream
from optllm_router.errors import BatchBusyError, BudgetExceededError, StoreError
from optllm_router.grading import Grader, Graders, check_reference
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Attempt, Decision, Outcome
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.base import BatchItem, Store

logger = logging.getLogger("optllm_router")

POLL_S = 0.004

_BOUND = (
    "and a hard budget binds: no call was made, since money that cannot be accounted for is not "
    "spent. Repair the store, or lift the budget"
)
_UNBOUND = (
    "and the batch is to survive: no call was made, since what cannot be written down would be "
    "asked twice. Repair the store, or leave `batch_id` out"
)


@dataclass(frozen=True, slots=True)
class Task:
    """One call within a router: the request, and what a batch or a probe adds to it.

    `decided` is given when a batch has decided (and reserved) already; `on_cost` is told what the
    call cost in nano-USD, once, whatever happens. `policy` is the batch's own, `cap` its budget
    that a call which is decided here has to reserve from. `grader` replaces the task's own;
    `on_score` is told the candidate and its score, once it is graded. `place` keeps the answer of
    an item whose batch survives its process: such a call, too, is on disk before it is made.
    """

    request: Request
    decided: Decided | None = None
    batch_id: str | None = None
    on_cost: Callable[[int], None] | None = None
    policy: Policy | None = None
    cap: Cap | None = None
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

    def converse(self, state: RouterState, task: Task) -> Conversation:
        """Hold the conversation of one call; see `effects`."""
        decided = task.decided
        if decided is None:
            if _is_bound(state, task):
                check_bound(task.request)
            try:
                decided = self.decider.decide(state, task.request, task.policy)
                if task.cap is not None:
                    yield from _reserve(task.cap, decided)
            except BudgetExceededError as error:
                raise self.client.budget_error(error) from None
        call = _Call(self, state, task, decided)
        try:
            check_reference(call.grader, task.request.reference)
            return (yield from call.converse())
        finally:
            call.book()

    def later(self, action: Callable[[], object]) -> None:
        """Do something on the writer's thread."""
        self.writer.write(lambda _store: action())


def _is_bound(state: RouterState, task: Task) -> bool:
    """Whether a hard budget binds a call that is not a probe."""
    return task.cap is not None or is_capped(state.policy, task.policy, task.request.policy)


def _reserve(cap: Cap, decided: Decided) -> Generator[Effect, Any, None]:
    """Reserve a call's worst case, waiting for calls in flight where it fails only for them."""
    if decided.worst_nusd is None:
        raise cap.unpriced_refusal(decided.candidate.name)
    while (verdict := cap.reserve(decided.worst_nusd)) == "wait":
        yield Pause(POLL_S)
    if verdict == "refused":
        raise cap.refusal(decided.worst_nusd)


class _Call:
    """The state of one call while it lasts."""

    def __init__(self, desk: Desk, state: RouterState, task: Task, decided: Decided) -> None:
        self.desk = desk
        self.task = task
        self.decided = decided
        self.entries = Entries(state, task.request, decided, task.batch_id)
        self.opened: Attempt | None = None
        self.cost_nusd = 0
        self.unbooked = [True]
        probes = decided.kind == "probe"  # asked for one by one, beside any policy
        self.is_bound = not probes and _is_bound(state, task)
        self.grader = task.grader or desk.graders.for_task(task.request.query.task)

    def converse(self) -> Conversation:
        sent = False
        try:
            if self.is_bound or self.task.place is not None:
                yield Write(self._write_ahead)
            sent = True
            response = yield Send(self.decided.candidate, self._arguments())
        except BaseException as error:
            if sent or not isinstance(error, StoreError):
                maybe = sent and self._may_have_cost(error)
                attempt = self.entries.failed(error, maybe_billed=maybe)
                attach(error, (attempt,))
                place = self.task.place
                item = None if place is None else place.failed(self.entries.decision_id, error)
                yield Write(lambda: self._conclude(attempt, item))
            raise
        if self.task.request.stream:
            return (yield from self._streaming(response))
        return (yield from self._answered(response))

    def book(self) -> None:
        """Tell a batch or a probe what the call cost, once."""
        try:
            self.unbooked.pop()
        except IndexError:
            return
        if self.task.on_cost is not None:
            self.task.on_cost(self.cost_nusd)
        if self.task.cap is not None:
            self.task.cap.settle(self.decided.worst_nusd or 0, self.cost_nusd)

    def _answered(self, response: Response) -> Conversation:
        answer = self._read(response)
        billed = bill(self.desk.client, self.decided.candidate, self.task.request.query, answer)
        attempt = self.entries.attempt("ok", billed, response_id=answer.response_id)
        attempt = replace(attempt, cache_hit=answer.cache_hit)
        facts, place = self._facts(billed), self.task.place
        item = None if place is None else place.answered(self.desk.client, response, facts)
        yield Write(lambda: self._conclude(attempt, item))
        annotate(response, facts)
        self._grade(answer.text, response)
        return response

    def _read(self, response: Response) -> Answer:
        """Read an answer; one that we cannot read is the caller's all the same."""
        try:
            return self.desk.client.describe(response)
        except Exception:
            self.desk.decider.n_faults += 1
            logger.exception("an answer of %s is billed unread", self.decided.candidate.name)
            return Answer(text="", usage=None, response_id=None)

    def _streaming(self, response: Response) -> Conversation:
        opened = self.opened = self.opened or self.entries.opened()
        meter = self.desk.client.meter(self.task.request.arguments)
        stream = RoutedStream(response, meter, self._finish, self.desk.later)
        try:
            if not self.is_bound:
                decision = self.entries.decision(served=self._served())
                yield Write(lambda: self.desk.journal.write(_recording(decision, opened)))
        except BaseException:  # its caller will never have it
            yield Write(stream.abandon)
            raise
        annotate(response, self._facts(None))
        return stream

    def _finish(self, end: End) -> None:
        """Complete a stream's attempt: billed by its usage, or by counting what arrived."""
        query, answer = self.task.request.query, end.answer
        billed = bill(self.desk.client, self.decided.candidate, query, answer)
        attempt = replace(
            self.entries.attempt(end.status, billed, response_id=answer.response_id),
            cache_hit=answer.cache_hit,
            **self.entries.error_facts(end.error),
        )
        if end.error is not None:
            if not answer.text and not self._may_have_cost(end.error):
                attempt = replace(attempt, cost_nusd=0, estimated=False)
            attach(end.error, (attempt,))
        self._conclude(attempt)
        if end.status == "ok":
            self._grade(answer.text, None)

    def _may_have_cost(self, error: BaseException) -> bool:
        return not isinstance(error, Exception) or self.desk.client.maybe_billed(error)

    def _arguments(self) -> Mapping[str, Any]:
        """The caller's arguments, with what makes worst cases true where they are needed.

        That is an output limit, and no retries; where no budget binds, a pin goes out as it came,
        and reasoning at some effort has no limit, since nobody knows how much of it that takes.
        """
        request, candidate = self.task.request, self.decided.candidate
        arguments = dict(request.arguments)
        if self.is_bound and not (RETRIES & (arguments.keys() | candidate.arguments.keys())):
            arguments |= dict.fromkeys(RETRIES, 0)  # retries are not seen here, but billed
        is_free = self.decided.kind in {"pin", "shadow"} or "reasoning_effort" in arguments
        as_given = is_free and not self.is_bound
        if request.query.max_output_tokens is None and not as_given and candidate.price is not None:
            arguments["max_tokens"] = output_limit(candidate, request.query)
        return arguments

    def _write_ahead(self) -> None:
        """Write the call down before it spends of a hard budget. Raises: StoreError."""
        opened, place = self.entries.opened(), self.task.place
        item = None if place is None else place.claimed(self.entries.decision_id)
        decision = self.entries.decision(served=None)
        try:
            self.desk.journal.write_ahead(_recording(decision, opened, item))
        except BatchBusyError:
            raise
        except StoreError as error:
            raise StoreError(f"{error}; {_BOUND if self.is_bound else _UNBOUND}") from error
        self.opened = opened

    def _conclude(self, attempt: Attempt, item: BatchItem | None = None) -> None:
        """Write how the call went, keep a batch's answer with it, and book its cost."""
        self.cost_nusd = attempt.cost_nusd or 0
        served = None if attempt.status == "error" else self._served()
        if self.opened is not None:
            completed = replace(attempt, id=self.opened.id)
            self.desk.journal.write(lambda store: store.settle(completed, served=served, item=item))
        else:
            decision = self.entries.decision(served=served)
            self.desk.journal.write(_recording(decision, attempt))
        self.book()

    def _served(self) -> str | None:
        """Who answers; unknown where LiteLLM may ask another model."""
        return None if self.task.request.may_reroute else self.decided.candidate.name

    def _grade(self, text: str, response: Response) -> None:
        """Grade in the background, where the task has a grader."""
        task, decision_id = self.task, self.entries.decision_id
        candidate = self.decided.candidate.name
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

    def _facts(self, billed: Bill | None) -> dict[str, object]:
        decided = self.decided
        expected = decided.expected_cost_nusd
        cost = billed.cost_nusd if billed is not None else None
        return {
            "decision_id": self.entries.decision_id,
            "candidate": decided.candidate.name,
            "chosen": decided.chosen,
            "expected_accuracy": decided.expected_accuracy,
            "expected_cost_usd": None if expected is None else expected / NANO_PER_USD,
            "cost_usd": None if cost is None else cost / NANO_PER_USD,
            "propensity": decided.propensity,
            "policy": decided.policy,
            "predictor_version": decided.predictor_version,
            "reason": decided.reason,
        }


def _recording(
    decision: Decision, attempt: Attempt, item: BatchItem | None = None
) -> Callable[[Store], None]:
    return lambda store: store.record(decision, [attempt], item=item)
