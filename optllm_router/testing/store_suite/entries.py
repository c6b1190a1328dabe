"""Entries of a log as tests write them; every field may be said otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from optllm_router.records import Attempt, Decision, Outcome
from optllm_router.store.base import Store

NOON = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
AWKWARD = "NUL \x00, escape \x1a0000, half an emoji \ud83d, a whole one \U0001f600, 'quotes' % \\"


def a_decision(number: int = 1, **changes: Any) -> Decision:
    """Return a served decision; `number` sets its id, text and time (one second apart)."""
    values: dict[str, Any] = {
        "id": f"decision-{number}",
        "created_at": NOON + number * SECOND,
        "kind": "route",
        "requested": "auto",
        "chosen": "small",
        "served": "small",
        "policy": "knee",
        "reason": "",
        "text_key": f"key-{number}",
        "features": b"\x00features\xff",
    }
    return Decision(**{**values, **changes})


def an_attempt(decision: Decision, number: int = 1, **changes: Any) -> Attempt:
    """Return an attempt that answered `decision` with 10 + 20 tokens for 30 nano-USD."""
    values: dict[str, Any] = {
        "id": f"{decision.id}-attempt-{number}",
        "decision_id": decision.id,
        "number": number,
        "candidate": "small",
        "status": "ok",
        "started_at": decision.created_at,
        "latency_s": 0.5,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cost_nusd": 30,
        "response_id": f"response-{decision.id}-{number}",
    }
    return Attempt(**{**values, **changes})


def an_outcome(decision: Decision, score: float = 1.0, **changes: Any) -> Outcome:
    """Return a grader's outcome of `decision`, a second after it."""
    values: dict[str, Any] = {
        "decision_id": decision.id,
        "score": score,
        "source": "grader:exact",
        "created_at": decision.created_at + SECOND,
    }
    return Outcome(**{**values, **changes})


def record(store: Store, number: int = 1, **changes: Any) -> Decision:
    """Write a decision with one answering attempt; return it."""
    decision = a_decision(number, **changes)
    store.record(decision, [an_attempt(decision, candidate=decision.served or "small")])
    return decision
