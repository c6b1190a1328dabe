"""What a call leaves beside its answer: facts on the response, attempts on the exception."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optllm_router.completion.base import Response
from optllm_router.dispatch.privacy import scrub
from optllm_router.records import Attempt


def annotate(response: Response, facts: Mapping[str, object]) -> None:
    """Put our facts beside LiteLLM's own hidden parameters."""
    hidden = getattr(response, "_hidden_params", None)
    if isinstance(hidden, dict):
        hidden["optllm"] = dict(facts)


def attach(error: BaseException, attempts: tuple[Attempt, ...]) -> None:
    """Leave the attempts on the exception; a few classes take no attributes."""
    try:
        error.optllm_attempts = attempts  # type: ignore[attr-defined]  # documented in the README
    except AttributeError:
        error.add_note(f"attempts: {attempts!r}")


def error_facts(error: BaseException | None, *, prompt: str) -> dict[str, Any]:
    """Describe an error for the log: its class, its text without keys and without the prompt."""
    if error is None:
        return {}
    return {"error_class": type(error).__name__, "error_text": scrub(str(error), prompt=prompt)}
