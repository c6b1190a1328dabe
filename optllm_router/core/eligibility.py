"""Who can serve a query at all: what is filtered out before the optimiser sees it.

A candidate is left out only for what is known: an unknown capability does not filter, since the
provider's own refusal is a better answer than ours.
"""

from __future__ import annotations

from optllm_router.core.cost import with_margin
from optllm_router.records import Candidate, Query


def reason_against(candidate: Candidate, query: Query) -> str | None:
    """Return why a candidate cannot serve a query, None when it can (or when nobody knows)."""
    return (
        _too_long(candidate, query)
        or _missing_capability(candidate, query)
        or _unsupported_parameter(candidate, query)
    )


def _too_long(candidate: Candidate, query: Query) -> str | None:
    window = candidate.capabilities.context_window
    if window is not None and query.n_prompt_tokens > window:
        return f"the prompt has about {query.n_prompt_tokens} tokens, its window is {window}"
    has_no_room = window is not None and window <= with_margin(query.n_prompt_tokens)
    if has_no_room and query.max_output_tokens is None:
        return (
            f"the prompt has about {query.n_prompt_tokens} tokens, which may leave no room for an "
            f"answer in its window of {window} (set `max_tokens` to try all the same)"
        )
    return None


def _missing_capability(candidate: Candidate, query: Query) -> str | None:
    can = candidate.capabilities
    if query.n_tools and can.tools is False:
        return "it cannot call tools"
    if query.n_images and can.vision is False:
        return "it cannot see images"
    if query.wants_json_schema and can.json_schema is False:
        return "it cannot follow a JSON schema"
    return None


def _unsupported_parameter(candidate: Candidate, query: Query) -> str | None:
    supported = candidate.capabilities.parameters
    if supported is None:
        return None
    missing = sorted(query.parameters - supported)
    return f"it does not support {', '.join(f'`{name}`' for name in missing)}" if missing else None
