"""One call, start to end: decide, send, bill, log, grade, annotate.

The order is the promise: what was answered is on disk before the caller has it (decision and
attempts in one transaction); of a stream, the decision and an open attempt are on disk before its
first chunk, and the attempt is completed when the stream ends, however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from optllm_router.completion.base import Client, Response
from optllm_router.dispatch.billing import Bill, bill
from optllm_router.dispatch.deciding import (
    Decided,
    Decider,
    RouterState,
    effective_policy,
    unpriced_refusal,
)
from optllm_router.dispatch.effects import Conversation, Effect, Pause, Send, Write
from optllm_router.dispatch.journal import Journal
from optllm_router.dispatch.privacy import scrub
from optllm_router.dispatch.requests import Request
from optllm_router.dispatch.streams import End, open_stream
from optllm_router.errors import BudgetExceededError, StoreError
from optllm_router.grading import Grader, Graders
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Attempt, Decision, Kind, Outcome
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.ids import new_id

POLL_S = 0.004


@dataclass(frozen=True, slots=True)
class Task:
    """One call within a router: the request, and what a batch or a probe adds to it.

    `decided` is given when a batch has decided (and reserved) already; `on_cost` is told what the
    call cost in nano-USD, once, whatever happens. `cap` is a batch's budget that a call which is
    decided here has to reserve from. `grader` replaces the task's own; `on_score` is told the
    candidate and its score, once it is graded.
    """

    request: Request
    decided: Decided | None = None
    batch_id: str | None = None
    on_cost: Callable[[int], None] | None = None
    cap: Cap | None = None
    grader: Grader | None = None
    on_score: Callable[[str, float], None] | None = None


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
            try:
                decided = self.decider.decide(state, task.request)
                self._check_accountable(state, task)
                if task.cap is not None:
                    yield from _reserve(task.cap, decided)
            except BudgetExceededError as error:
                raise self.client.budget_error(error) from None
        call = _Call(self, state, task, decided)
        return (yield from call.converse())

    def _check_accountable(self, state: RouterState, task: Task) -> None:
        """Refuse to spend what a hard budget could not account for."""
        bound = effective_policy(state.policy, task.request.policy)[1] is not None
        if (bound or task.cap is not None) and not self.journal.is_writable():
            raise StoreError(
                f"the log cannot be written ({self.journal.n_waiting} entries wait) and a hard "
                "budget binds: no call was made. Repair the store, or lift the budget"
            )


def _reserve(cap: Cap, decided: Decided) -> Generator[Effect, Any, None]:
    """Reserve a call's worst case, waiting for calls in flight where it fails only for them."""
    if decided.worst_nusd is None:
        raise unpriced_refusal(cap, decided.candidate.name)
    while (verdict := cap.reserve(decided.worst_nusd)) == "wait":
        yield Pause(POLL_S)
    if verdict == "refused":
        raise cap.refusal(decided.worst_nusd)


class _Call:
    """The state of one call while it lasts."""

    def __init__(self, desk: Desk, state: RouterState, task: Task, decided: Decided) -> None:
        self.desk = desk
        self.state = state
        self.task = task
        self.decided = decided
        self.decision_id = new_id()
        self.started_at = datetime.now(tz=UTC)
        self.clock = time.perf_counter()
        self.booked = False

    def converse(self) -> Conversation:
        request, candidate = self.task.request, self.decided.candidate
        arguments = self._arguments()
        try:
            response = yield Send(candidate, arguments)
        except BaseException as error:
            attempt = self._failed(error)
            yield Write(lambda: self._write([attempt]))
            self._book(attempt.cost_nusd)
            _attach(error, (attempt,))
            raise
        if request.stream:
            return (yield from self._streaming(response))
        return (yield from self._answered(response))

    def _answered(self, response: Response) -> Conversation:
        answer = self.desk.client.describe(response)
        billed = bill(self.desk.client, self.decided.candidate, self.task.request.query, answer)
        attempt = self._attempt("ok", billed, response_id=answer.response_id)
        attempt = replace(attempt, cache_hit=answer.cache_hit)
        yield Write(lambda: self._write([attempt]))
        self._book(attempt.cost_nusd)
        annotate(response, self._facts(billed))
        self._grade(answer.text, response)
        return response

    def _streaming(self, response: Response) -> Conversation:
        attempt = replace(self._attempt("open", None), streamed=True)
        yield Write(lambda: self._write([attempt]))
        stream = open_stream(
            response, self.desk.client.meter(self.task.request.arguments), self._end_of(attempt)
        )
        annotate(response, self._facts(None))
        return stream

    def _end_of(self, opened: Attempt) -> Callable[[End], None]:
        """What completes a stream's attempt: billed by its usage, or by counting what arrived."""

        def finish(end: End) -> None:
            client, request = self.desk.client, self.task.request
            billed = bill(client, self.decided.candidate, request.query, end.answer)
            attempt = replace(
                self._attempt(end.status, billed, response_id=end.answer.response_id),
                id=opened.id,
                streamed=True,
                cache_hit=end.answer.cache_hit,
                **_error_facts(end.error),
            )
            served = self.decided.candidate.name
            self.desk.journal.write(lambda store: store.settle(attempt, served=served))
            self._book(attempt.cost_nusd)
            if end.status == "ok":
                self._grade(end.answer.text, None)

        return finish

    def _arguments(self) -> Mapping[str, Any]:
        """The caller's arguments; a routed call without a limit gets the candidate's own."""
        arguments = self.task.request.arguments
        limited = self.task.request.query.max_output_tokens is not None
        if limited or self.decided.kind != "route" or self.decided.candidate.price is None:
            return arguments
        return {**arguments, "max_tokens": self.decided.candidate.max_output_tokens}

    def _attempt(
        self, status: Any, billed: Bill | None, *, response_id: str | None = None
    ) -> Attempt:
        usage = billed.usage if billed is not None else None
        return Attempt(
            id=new_id(),
            decision_id=self.decision_id,
            number=0,
            candidate=self.decided.candidate.name,
            status=status,
            started_at=self.started_at,
            latency_s=time.perf_counter() - self.clock,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
            cached_tokens=None if usage is None else usage.cached_tokens,
            cost_nusd=0 if billed is None else billed.cost_nusd,
            estimated=billed is not None and billed.estimated,
            response_id=response_id,
            price_version=self.state.price_version,
        )

    def _failed(self, error: BaseException) -> Attempt:
        """A failed attempt: free, unless it may have reached the provider and been billed."""
        maybe = not isinstance(error, Exception) or self.desk.client.maybe_billed(error)
        cost = (self.decided.expected_cost_nusd or self.decided.worst_nusd or 0) if maybe else 0
        return replace(
            self._attempt("error", None),
            cost_nusd=cost,
            estimated=maybe,
            **_error_facts(error),
        )

    def _write(self, attempts: list[Attempt]) -> None:
        decision = self._decision(failed=attempts[-1].status == "error")
        self.desk.journal.write(lambda store: store.record(decision, attempts))

    def _decision(self, *, failed: bool) -> Decision:
        request, decided, query = self.task.request, self.decided, self.task.request.query
        kept = self.state.privacy.keep(query.text, decided.features)
        return Decision(
            id=self.decision_id,
            created_at=self.started_at,
            kind=decided.kind,
            requested=request.requested,
            chosen=decided.chosen,
            served=None if failed else decided.candidate.name,
            policy=decided.policy,
            reason=decided.reason,
            task=query.task,
            tags=request.tags,
            session_id=request.session_id,
            batch_id=self.task.batch_id,
            predictor_version=decided.predictor_version,
            price_version=self.state.price_version,
            propensity=decided.propensity,
            dual_price=decided.dual_price,
            allowed=decided.allowed,
            expected_accuracy=decided.expected_accuracy,
            expected_cost_nusd=decided.expected_cost_nusd,
            text_key=kept.text_key,
            features=kept.features,
            prompt=kept.prompt,
            n_prompt_tokens=query.n_prompt_tokens,
            n_turns=query.n_turns,
            n_tools=query.n_tools,
            n_images=query.n_images,
            wants_json=query.wants_json,
        )

    def _book(self, cost_nusd: int | None) -> None:
        if self.booked:
            return
        self.booked = True
        if self.task.on_cost is not None:
            self.task.on_cost(cost_nusd or 0)
        if self.task.cap is not None:
            self.task.cap.settle(self.decided.worst_nusd or 0, cost_nusd or 0)

    def _grade(self, text: str, response: Response) -> None:
        """Grade in the background, where the task has a grader."""
        task, decision_id = self.task, self.decision_id
        candidate, origin = self.decided.candidate.name, _origin(self.decided.kind)
        grader = task.grader or self.desk.graders.for_task(task.request.query.task)
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
            "decision_id": self.decision_id,
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


def annotate(response: Response, facts: Mapping[str, object]) -> None:
    """Put our facts beside LiteLLM's own hidden parameters."""
    hidden = getattr(response, "_hidden_params", None)
    if isinstance(hidden, dict):
        hidden["optllm"] = dict(facts)


def _origin(kind: Kind) -> str:
    return "probe" if kind == "probe" else "grader"


def _error_facts(error: BaseException | None) -> dict[str, Any]:
    if error is None:
        return {}
    return {"error_class": type(error).__name__, "error_text": scrub(str(error))}


def _attach(error: BaseException, attempts: tuple[Attempt, ...]) -> None:
    """Leave the attempts on the exception; a few classes take no attributes."""
    try:
        error.optllm_attempts = attempts  # type: ignore[attr-defined]  # documented in the README
    except AttributeError:
        error.add_note(f"attempts: {attempts!r}")
