"""The log's records of one call: its decision, and its attempts as they open, end or fail."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from optllm_router.completion.base import Answer
from optllm_router.dispatch.billing import Bill
from optllm_router.dispatch.deciding import Decided, RouterState
from optllm_router.dispatch.notes import error_facts
from optllm_router.dispatch.offers import Offer
from optllm_router.dispatch.privacy import key_values
from optllm_router.dispatch.requests import Request
from optllm_router.records import Attempt, AttemptStatus, Decision
from optllm_router.store.ids import new_id


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt, which begins now."""

    offer: Offer
    number: int
    id: str = field(default_factory=new_id)
    started_at: datetime = field(default_factory=_now)
    clock: float = field(default_factory=time.perf_counter)

    @property
    def elapsed_s(self) -> float:
        """How long it has taken so far."""
        return time.perf_counter() - self.clock


@dataclass(frozen=True, slots=True)
class Entries:
    """Makes the records of one call, which begins now.

    `notes` say what went otherwise than planned; they end up in the decision's reason.
    """

    state: RouterState
    request: Request
    decided: Decided
    batch_id: str | None
    decision_id: str = field(default_factory=new_id)
    started_at: datetime = field(default_factory=_now)
    notes: list[str] = field(default_factory=list)

    def attempt(
        self,
        this: Try,
        status: AttemptStatus,
        billed: Bill | None = None,
        *,
        answer: Answer | None = None,
    ) -> Attempt:
        """An attempt as it stands now; free where nothing is billed."""
        usage = billed.usage if billed is not None else None
        return Attempt(
            id=this.id,
            decision_id=self.decision_id,
            number=this.number,
            candidate=this.offer.candidate.name,
            status=status,
            started_at=this.started_at,
            latency_s=this.elapsed_s,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
            cached_tokens=None if usage is None else usage.cached_tokens,
            cost_nusd=0 if billed is None else billed.cost_nusd,
            estimated=billed is not None and billed.estimated,
            streamed=self.request.stream,
            cache_hit=answer is not None and answer.cache_hit,
            response_id=None if answer is None else answer.response_id,
            price_version=self.state.price_version,
        )

    def opened(self, this: Try) -> Attempt:
        """An attempt under way, at its forecast until it is completed."""
        attempt = self.attempt(this, "open")
        return replace(attempt, cost_nusd=_forecast(this.offer), estimated=True)

    def failed(self, this: Try, error: BaseException, *, maybe_billed: bool) -> Attempt:
        """A failed attempt: free, unless it may have been billed, then at its forecast."""
        return replace(
            self.attempt(this, "error"),
            cost_nusd=_forecast(this.offer) if maybe_billed else 0,
            estimated=maybe_billed,
            **self.error_facts(this, error),
        )

    def error_facts(self, this: Try, error: BaseException | None) -> dict[str, Any]:
        """What the log says of an error; its text only where prompts are kept too."""
        return error_facts(
            error,
            prompt=self.request.query.text,
            keys=key_values(this.offer.candidate, self.request.arguments),
            is_quoted=self.state.privacy.level == "full",
        )

    def decision(self, *, served: str | None) -> Decision:
        """The decision, with as much of the text as the privacy level keeps."""
        request, decided, query = self.request, self.decided, self.request.query
        kept = self.state.privacy.keep(query.text, decided.features, request.embedding)
        return Decision(
            id=self.decision_id,
            created_at=self.started_at,
            kind=decided.kind,
            requested=request.requested,
            chosen=decided.chosen,
            served=served,
            policy=decided.policy,
            reason=self.reason(served),
            task=query.task,
            tags=request.tags,
            session_id=request.session_id,
            batch_id=self.batch_id,
            predictor_version=decided.predictor_version,
            price_version=self.state.price_version,
            propensity=self.propensity(served),
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

    def propensity(self, served: str | None) -> float | None:
        """The choice's; None where somebody else served than was chosen."""
        return self.decided.propensity if served in {None, self.decided.chosen} else None

    def reason(self, served: str | None) -> str:
        """Why it was decided so; what went otherwise; and who answers in the end."""
        answers = [f"{served} answers"] if served is not None and self.notes else []
        return "; ".join([self.decided.reason, *self.notes, *answers])


def _forecast(offer: Offer) -> int | None:
    """What an attempt is taken to have cost where nobody says; at worst where nothing is known."""
    forecast_nusd = offer.forecast()
    return offer.worst_nusd if forecast_nusd is None else forecast_nusd
