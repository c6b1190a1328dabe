"""What a caller says of an answer: which decision is meant, and the outcome that is written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from optllm_router.grading import check_score
from optllm_router.records import Outcome
from optllm_router.store.base import Store

FEEDBACK = "feedback"


def feedback_outcome(
    store: Store, reference: str, score: object, *, source: str = FEEDBACK
) -> Outcome:
    """Build the outcome of a decision, by its id or a response's own.

    Raises: ConfigError for a score outside [0, 1], UnknownDecisionError.
    """
    checked = check_score(score)
    return Outcome(
        decision_id=store.find(reference),
        score=checked,
        source=source,
        created_at=datetime.now(tz=UTC),
    )


def reference_of(reference: Any) -> str:
    """Return the decision id of a response (or stream), or the id itself."""
    if isinstance(reference, str):
        return reference
    hidden = getattr(reference, "_hidden_params", None)
    facts = hidden.get("optllm") if isinstance(hidden, dict) else None
    if isinstance(facts, dict):
        return str(facts["decision_id"])
    return str(getattr(reference, "id", reference))
