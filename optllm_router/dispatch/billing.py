"""What one attempt cost: reported tokens at the candidate's price, or a flagged estimate."""

from __future__ import annotations

from dataclasses import dataclass

from optllm_router.completion.base import Answer, Client
from optllm_router.core.cost import cost_nusd
from optllm_router.records import Candidate, Query, Usage


@dataclass(frozen=True, slots=True)
class Bill:
    """An attempt's tokens and exact cost; `cost_nusd` is None where the price is unknown."""

    usage: Usage
    cost_nusd: int | None
    estimated: bool


def bill(client: Client, candidate: Candidate, query: Query, answer: Answer) -> Bill:
    """Bill what arrived; without reported usage the tokens are counted here and flagged."""
    estimated = answer.usage is None and not answer.cache_hit and answer.cost_nusd is None
    said = answer.text if answer.billable_text is None else answer.billable_text
    usage = answer.usage or Usage(
        prompt_tokens=query.n_prompt_tokens, completion_tokens=client.count_text(said)
    )
    if answer.cache_hit:
        return Bill(usage, 0, estimated=False)
    if answer.cost_nusd is not None:
        return Bill(usage, answer.cost_nusd, estimated=False)
    if candidate.price is None:
        return Bill(usage, None, estimated)
    return Bill(usage, cost_nusd(usage, candidate.price), estimated)
