"""What a probe can cost at most, for people to agree to before it is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optllm_router.completion.counting import count_messages
from optllm_router.core.cost import worst_case_nusd
from optllm_router.core.eligibility import reason_against
from optllm_router.dispatch.requests import describe_query
from optllm_router.records import NANO_PER_USD, Candidate


def probe_worst_case(
    candidates: Sequence[Candidate], requests: Sequence[Mapping[str, Any]]
) -> tuple[int, float]:
    """Return how many calls a probe makes, and the sum of their worst cases in USD."""
    n_calls, total = 0, 0
    for request in requests:
        query = describe_query(request, request.get("task"), count_messages)
        able = [one for one in candidates if reason_against(one, query) is None]
        n_calls += len(able)
        total += sum(worst_case_nusd(one, query) or 0 for one in able)
    return n_calls, total / NANO_PER_USD
