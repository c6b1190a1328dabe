"""The log's records of one call: its decision, and its attempt as it opens, ends or fails."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from optllm_router.dispatch.billing import Bill
from optllm_router.dispatch.deciding import Decided, RouterState
from optllm_router.dispatch.notes import error_facts
from optllm_router.dispatch.privacy import key_values
from optllm_router.dispatch.requests import Request
from optllm_router.records import Attempt, Decision
from optllm_router.store.ids import new_id


def _now() -> datetime:
    return datetime.now(tz=UTC)


@dataclass(frozen=True, slots=True)
class Entries:
    """Makes the records of one call, which begins now."""

    state: RouterState
    request: Request
    decided: Decided
    batch_id: str | None
    decision_id: str = field(default_factory=new_id)
    started_at: datetime = field(default_factory=_now)
    clock: float = field(default_factory=time.perf_counter)

    def attempt(
        self, status: Any, billed: Bill | None, *, response_id: str | None = None
    ) -> Attempt:
        """An attempt as it stands now; free where nothing is billed."""
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
            streamed=self.request.stream,
            response_id=response_id,
            price_version=self.state.price_version,
        )

    def opened(self) -> Attempt:
        """An attempt under way, at its forecast until it is completed."""
        return replace(self.attempt("open", None), cost_nusd=self._forecast(), estimated=True)

    def failed(self, error: BaseException, *, maybe_billed: bool) -> Attempt:
        """A failed attempt: free, unless it may have been billed, then at its forecast."""
        return replace(
            self.attempt("error", None),
            cost_nusd=self._forecast() if maybe_billed else 0,
            estimated=maybe_billed,
            **self.error_facts(error),
        )

    def error_facts(self, error: BaseException | None) -> dict[str, Any]:
        """What the log says of an error; its text only where prompts are kept too."""
        return error_facts(
            error,
            prompt=self.request.query.text,
            keys=key_values(self.decided.candidate, self.request.arguments),
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
            reason=decided.reason,
            task=query.task,
            tags=request.tags,
            session_id=request.session_id,
            batch_id=self.batch_id,
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

    def _forecast(self) -> int | None:
        if self.decided.expected_cost_nusd is not None:
            return self.decided.expected_cost_nusd
        return self.decided.worst_nusd
